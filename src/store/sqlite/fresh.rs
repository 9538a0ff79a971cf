//! The newest rows of the outbox, so that who publishes them need not read again what was just written.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::service::ports::OutboxRow;

/// Rows that are kept, at most.
const LENGTH_MAX: usize = 2_048;

/// Bytes of their messages as they are stored, at most.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows as they are in the database, durable as they are there.
///
/// Whoever changes rows by other means has to [clear](Fresh::clear) it.
#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The outbox has no row above this number but `rows`. Absent while that is not known of any.
    above: Option<i64>,
    rows: BTreeMap<i64, Row>,
    bytes: usize,
}

/// A row, and the bytes of its message as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) row: OutboxRow,
    pub(super) bytes: usize,
}

/// What a transaction did to the outbox.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New rows, in the order of their numbers.
    pub(super) written: Vec<Row>,
    /// Numbers of rows that are gone.
    pub(super) taken: Vec<i64>,
    /// Rows were changed otherwise.
    pub(super) is_other: bool,
}

impl Fresh {
    /// Takes over what was committed.
    pub(super) fn apply(&self, changes: Changes) {
        let mut inner = self.inner();
        if changes.is_other {
            // Those that were written may be among those that were changed.
            return inner.clear();
        }
        for number in changes.taken {
            inner.remove(number);
        }
        for row in changes.written {
            inner.push(row);
        }
    }

    /// Forgets everything: what is in the database is not known.
    pub(super) fn clear(&self) {
        self.inner().clear();
    }

    /// Rows with numbers above `after`, up to `limit`, unless the database has to be asked: for older ones, or whether there are
    /// any.
    pub(super) fn read(&self, after: i64, limit: usize) -> Option<Vec<OutboxRow>> {
        let inner = self.inner();
        inner.above.filter(|above| *above <= after)?;
        let rows = inner.rows.range(after.checked_add(1)?..).take(limit);
        let rows: Vec<_> = rows.map(|(_, row)| row.row.clone()).collect();
        (!rows.is_empty()).then_some(rows)
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, number: i64) {
        if let Some(row) = self.rows.remove(&number) {
            self.bytes -= row.bytes;
        }
    }

    /// Numbers rise, so there was nothing above the first of those that are known.
    fn push(&mut self, row: Row) {
        self.above.get_or_insert(row.row.number - 1);
        self.bytes += row.bytes;
        self.rows.insert(row.row.number, row);
        while (self.rows.len() > LENGTH_MAX || self.bytes > BYTES_MAX)
            && let Some((number, row)) = self.rows.pop_first()
        {
            self.bytes -= row.bytes;
            self.above = Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::domain::message::{Message, Reply};
    use crate::domain::record::{Outcome, ReplyAddress};
    use crate::domain::trace::TraceContext;

    fn row(number: i64, bytes: usize) -> Row {
        let reply = Reply {
            id: Uuid::nil(),
            address: ReplyAddress { reply_to: "replies".to_owned(), correlation_id: None },
            trace: TraceContext::default(),
            command: None,
            replayed: false,
            time: None,
            outcome: Outcome::default(),
        };
        let message = Arc::new(Message::Reply(Box::new(reply)));
        Row { row: OutboxRow { number, message }, bytes }
    }

    fn write(fresh: &Fresh, numbers: impl IntoIterator<Item = i64>) {
        let written = numbers.into_iter().map(|number| row(number, 10)).collect();
        fresh.apply(Changes { written, ..Changes::default() });
    }

    fn take(fresh: &Fresh, taken: &[i64]) {
        fresh.apply(Changes { taken: taken.to_vec(), ..Changes::default() });
    }

    fn read(fresh: &Fresh, after: i64, limit: usize) -> Option<Vec<i64>> {
        Some(fresh.read(after, limit)?.iter().map(|row| row.number).collect())
    }

    #[test]
    fn it_answers_only_what_it_knows_in_full() {
        let fresh = Fresh::default();
        assert_eq!(read(&fresh, 0, 9), None);
        write(&fresh, [7, 8, 9]);
        assert_eq!(read(&fresh, 5, 9), None, "6 may be there");
        assert_eq!(read(&fresh, 6, 2), Some(vec![7, 8]));
        take(&fresh, &[8, 3]);
        assert_eq!(read(&fresh, 6, 9), Some(vec![7, 9]));
        assert_eq!(read(&fresh, 9, 9), None, "whether there is more the database tells");
        assert_eq!(read(&fresh, i64::MAX, 9), None);
        write(&fresh, [12]);
        assert_eq!(read(&fresh, 9, 9), Some(vec![12]));
        fresh.apply(Changes { is_other: true, ..Changes::default() });
        assert_eq!(read(&fresh, 6, 9), None);
        write(&fresh, [13]);
        assert_eq!(read(&fresh, 11, 9), None, "12 is there");
        assert_eq!(read(&fresh, 12, 9), Some(vec![13]));
        fresh.clear();
        assert_eq!(read(&fresh, 12, 9), None);
    }

    #[test]
    fn what_has_no_room_is_the_oldest() {
        let fresh = Fresh::default();
        let length = i64::try_from(LENGTH_MAX).unwrap();
        write(&fresh, 1..=length + 2);
        assert_eq!(read(&fresh, 1, 1), None);
        assert_eq!(read(&fresh, 2, 1), Some(vec![3]));
        let large = vec![row(length + 3, BYTES_MAX), row(length + 4, 1)];
        fresh.apply(Changes { written: large, ..Changes::default() });
        assert_eq!(read(&fresh, length + 2, 1), None);
        assert_eq!(read(&fresh, length + 3, 1), Some(vec![length + 4]));
    }
}
