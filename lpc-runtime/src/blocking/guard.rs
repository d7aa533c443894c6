//! [`Guard`]: looks whether the client is still there, while the receive half is parked.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connection::Connection;
use crate::maintenance::visits::Visits;
use crate::maintenance::{self, Maintained};

/// Has maintenance look at a connection of which the receive half is parked, as long as calls run.
pub(super) struct Guard {
    connection: Weak<Connection>,
    visits: Visits,
}

/// How often.
const LOOK: Duration = Duration::from_secs(1);

impl Guard {
    pub(super) fn new(connection: Weak<Connection>) -> Arc<Self> {
        Arc::new(Self { connection, visits: Visits::default() })
    }

    /// From now on the connection is looked at.
    pub(super) fn watch(self: &Arc<Self>) {
        if self.visits.begin() {
            maintenance::trim(maintenance::weak(self), LOOK);
        }
    }
}

impl Maintained for Guard {
    fn trim(&self) -> Option<Duration> {
        let connection = self.connection.upgrade()?;
        self.visits.visit(|| connection.is_to_be_watched()).then_some(LOOK)
    }
}
