//! A type whose derive fails is named once for each of serde's traits, wherever and however often it is used.

use lpc::service;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_everything = "lowercase")]
pub struct Row {
    pub number: u64,
}

#[service]
pub trait Owned {
    fn put(&self, row: Row) -> lpc::Result<()>;
}

#[service]
pub trait Lent {
    fn show(&self, row: &Row) -> lpc::Result<()>;
}

#[service]
pub trait Returned {
    fn get(&self) -> lpc::Result<Row>;
}

#[service]
pub trait InVec {
    async fn put(&self, row: Vec<Row>) -> lpc::Result<()>;
    async fn get(&self) -> lpc::Result<Option<Row>>;
    async fn show(&self, row: &[Row]) -> lpc::Result<()>;
}

fn main() {}
