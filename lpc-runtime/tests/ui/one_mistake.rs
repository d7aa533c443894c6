//! One mistake is one error, though the rest of the crate uses what the trait would have become.

use lpc::service;

pub struct Store;

#[service]
pub trait Documents {
    fn count_words(&self, text: &str) -> lpc::Result<u64>;
    fn put(&mut self, name: &str) -> lpc::Result<u64>;
}

impl Documents for Store {
    fn count_words(&self, text: &str) -> lpc::Result<u64> {
        Ok(text.len() as u64)
    }
    fn put(&mut self, _: &str) -> lpc::Result<u64> {
        Ok(1)
    }
}

#[service]
pub trait Journal {
    async fn append(&self, line: &str) -> lpc::Result<u64>;
    async fn len(&self) -> u64;
}

impl Journal for Store {
    async fn append(&self, line: &str) -> lpc::Result<u64> {
        Ok(line.len() as u64)
    }
    async fn len(&self) -> u64 {
        1
    }
}

fn report(documents: &impl Documents) -> lpc::Result<()> {
    documents.count_words("one two")?;
    Ok(())
}

fn requires_send(_: impl Future + Send) {}

fn journal(journal: &impl Journal) {
    requires_send(journal.len());
}

fn journal_by_others(journal: &impl JournalBlocking) -> lpc::Result<u64> {
    journal.append("line")
}

fn serve() -> lpc::Result<()> {
    report(&Store)?;
    report(&DocumentsClient::connect("documents")?)?;
    let documents = DocumentsClient::builder().connect("documents")?;
    let _ = documents.clone().client();
    let _ = JournalBlockingClient::connect("journal")?.append("line");
    let _ = journal_by_others(&JournalBlockingClient::connect("journal")?);
    Ok(())
}

async fn serve_async() -> lpc::Result<()> {
    let documents = DocumentsAsyncClient::connect("documents").await?;
    documents.count_words("one two").await?;
    journal(&JournalClient::connect("journal").await?);
    Ok(())
}

fn main() {
    let _ = serve();
    let _ = serve_async();
}
