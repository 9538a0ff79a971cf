//! The ports of one process, each behind its gate. A new method of a port does not compile until it has its place here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::act::{Act, ActRecord};
use guest_connection_adapter::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::erasure::Whose;
use guest_connection_adapter::domain::heal::{self, Heal, Healed};
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish, PutOff};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::CommandRecord;
use guest_connection_adapter::domain::reply::{Reply, Unauthorized};
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::ports::{
    Accepted, Authorization, Begun, Books, Due, DueCursor, Finished, ForgetStep, Oldest, OutboxRow, Patch,
    Publication, Publisher, PutOffAnswer, Store, StoreFuture, Upstream,
};
use guest_connection_adapter::service::tenure::Slots;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::gate::{Gate, Way};
use crate::history::Entry;
use crate::outside::Outside;
use crate::point::{Effect, Moment};

/// How long the upstream takes over a PATCH, so that two can overlap.
const PATCH_TIME: Duration = Duration::from_millis(3);

pub struct Gated<P: ?Sized> {
    pub gate: Arc<Gate>,
    pub outside: Arc<Outside>,
    pub port: Arc<P>,
}

impl<P: ?Sized> Clone for Gated<P> {
    fn clone(&self) -> Self {
        Self { gate: self.gate.clone(), outside: self.outside.clone(), port: self.port.clone() }
    }
}

impl Gated<dyn Store> {
    /// A call that changes the store. It is handed over at once, if it is at all.
    fn effect<T: Send + 'static>(
        &self,
        effect: Effect,
        call: impl FnOnce(&dyn Store) -> StoreFuture<T> + Send + 'static,
        note: impl FnOnce(&Outside, &T) + Send + 'static,
    ) -> StoreFuture<T> {
        let this = self.clone();
        let way = self.gate.approach(effect);
        let handed_over = match way {
            Way::Free(_) => call(&*self.port),
            Way::Shut => {
                let this = self.clone();
                async move {
                    this.gate.pass().await;
                    call(&*this.port).await
                }
                .boxed()
            }
        };
        async move {
            let answer = handed_over.await;
            if let Ok(answer) = &answer {
                note(&this.outside, answer);
                this.outside.changed();
            }
            if matches!(way, Way::Free(Some(_))) {
                this.gate.strike();
            }
            this.gate.pass().await;
            answer
        }
        .boxed()
    }

    /// A call that changes nothing.
    fn question<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Store) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let this = self.clone();
        async move {
            this.gate.pass().await;
            let answer = call(&*this.port).await;
            this.gate.pass().await;
            answer
        }
        .boxed()
    }
}

impl Store for Gated<dyn Store> {
    fn accept(&self, request: Acceptance, claim: Option<Uuid>) -> StoreFuture<Accepted> {
        self.effect(Effect::Accept, move |store| store.accept(request, claim), |_, _| {})
    }

    fn begin(&self, id: CommandId, event_id: Uuid, caller_waits: bool) -> StoreFuture<Begun> {
        self.effect(Effect::Begin, move |store| store.begin(id, event_id, caller_waits), |_, _| {})
    }

    // Nobody is paused for long in these tests, so what follows has no points of its own.

    fn put_off(
        &self,
        id: CommandId,
        event_id: Uuid,
        caller_waits: bool,
        put_off: PutOff,
    ) -> StoreFuture<PutOffAnswer> {
        self.question(move |store| store.put_off(id, event_id, caller_waits, put_off))
    }

    fn put_off_due(&self, requester: Option<OrganizationId>, delay: Duration) -> StoreFuture<u64> {
        self.question(move |store| store.put_off_due(requester, delay))
    }

    fn resume(&self, requester: Option<OrganizationId>) -> StoreFuture<u64> {
        self.question(move |store| store.resume(requester))
    }

    fn release(&self, ids: Vec<CommandId>) -> StoreFuture<()> {
        self.question(move |store| store.release(ids))
    }

    fn finish(&self, finish: Finish) -> StoreFuture<Finished> {
        let note = |outside: &Outside, finished: &Finished| outside.finished(finished);
        self.effect(Effect::Finish, move |store| store.finish(finish), note)
    }

    fn finish_followed(&self, finish: &Finish) -> Option<StoreFuture<Finished>> {
        // What the gate holds up may be overtaken, as by an instance that is held up itself.
        Some(self.finish(finish.clone()))
    }

    fn requester(&self, id: CommandId) -> StoreFuture<Option<OrganizationId>> {
        self.question(move |store| store.requester(id))
    }

    fn command(&self, id: CommandId) -> StoreFuture<Option<CommandRecord>> {
        self.question(move |store| store.command(id))
    }

    fn finals(&self, ids: Vec<CommandId>) -> StoreFuture<Vec<CommandRecord>> {
        self.question(move |store| store.finals(ids))
    }

    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> StoreFuture<Option<CommandRecord>> {
        self.question(move |store| store.command_by_key(requester, key))
    }

    fn due(&self, after: DueCursor, limit: usize) -> StoreFuture<Vec<Due>> {
        self.question(move |store| store.due(after, limit))
    }

    fn line(&self, connection: Connection, limit: usize) -> StoreFuture<Vec<Due>> {
        self.question(move |store| store.line(connection, limit))
    }

    fn backlog(&self) -> StoreFuture<u64> {
        self.question(|store| store.backlog())
    }

    fn suspects(&self, limit: usize) -> StoreFuture<Vec<Connection>> {
        self.question(move |store| store.suspects(limit))
    }

    fn begin_heal(&self, connection: Connection) -> StoreFuture<Option<(Heal, TraceContext)>> {
        self.effect(Effect::BeginHeal, move |store| store.begin_heal(connection), |_, _| {})
    }

    fn finish_heal(&self, finish: heal::Finish) -> StoreFuture<Healed> {
        let note = |outside: &Outside, healed: &Healed| outside.note(Entry::Healed(*healed));
        self.effect(Effect::FinishHeal, move |store| store.finish_heal(finish), note)
    }

    fn due_next(&self) -> StoreFuture<Option<Timestamp>> {
        self.question(|store| store.due_next())
    }

    fn outbox(&self, after: i64, limit: usize, slots: Slots) -> StoreFuture<Vec<OutboxRow>> {
        self.question(move |store| store.outbox(after, limit, slots))
    }

    fn confirm(&self, numbers: Vec<i64>) -> StoreFuture<()> {
        self.effect(Effect::Mark, move |store| store.confirm(numbers), |_, ()| {})
    }

    fn purge(&self, _: usize) -> StoreFuture<u64> {
        unreachable!("nothing is forgotten in these tests")
    }

    fn forget(&self, _: Whose, _: i64, _: usize) -> StoreFuture<ForgetStep> {
        unreachable!("nobody is forgotten in these tests")
    }

    fn begin_act(&self, _: Act) -> StoreFuture<i64> {
        unreachable!("there are no administrators in these tests")
    }

    fn end_act(&self, _: i64, _: BTreeMap<String, u64>) -> StoreFuture<()> {
        unreachable!("there are no administrators in these tests")
    }

    fn acts(&self, _: Option<i64>, _: usize) -> StoreFuture<Vec<ActRecord>> {
        unreachable!("there are no administrators in these tests")
    }

    fn books(&self) -> StoreFuture<Books> {
        self.question(|store| store.books())
    }

    fn oldest(&self) -> StoreFuture<Oldest> {
        self.question(|store| store.oldest())
    }

    fn probe(&self) -> StoreFuture<()> {
        self.question(|store| store.probe())
    }

    fn close(&self) -> StoreFuture<()> {
        unreachable!("a process that is struck closes nothing")
    }
}

/// The upstream is [`Outside`] itself.
impl Upstream for Gated<()> {
    fn knows(&self, _: OrganizationId) -> bool {
        true
    }

    fn is_ready(&self, _: OrganizationId) -> bool {
        true
    }

    fn authorize(&self, _: OrganizationId, _: bool) -> BoxFuture<'_, Result<Authorization, Unauthorized>> {
        async move {
            let way = self.gate.approach(Effect::Token);
            if matches!(way, Way::Free(Some(_))) {
                self.gate.strike();
            }
            self.gate.pass().await;
            let header = http::HeaderValue::from_static("Bearer token");
            Ok(Authorization { header, serial: 1 })
        }
        .boxed()
    }

    fn refuse(&self, _: OrganizationId, _: &Authorization) {}

    fn patch(&self, patch: Patch, _: Authorization) -> BoxFuture<'_, Reply> {
        async move {
            let way = self.gate.approach(Effect::Patch);
            if way == Way::Shut {
                self.gate.pass().await;
            }
            let sent = self.outside.patch_sent(&patch);
            if way == Way::Shut {
                self.outside.note(Entry::Overdue { patch: sent });
            }
            sleep(PATCH_TIME).await;
            let reply = match way {
                Way::Free(Some(Moment::Lost)) => self.outside.patch_lost(sent),
                Way::Free(Some(Moment::Late)) => self.outside.patch_late(sent),
                _ => self.outside.patch_heard(sent),
            };
            if matches!(way, Way::Free(Some(_))) {
                self.gate.strike();
            }
            self.gate.pass().await;
            reply
        }
        .boxed()
    }
}

/// So is the broker.
impl Publisher for Gated<()> {
    fn publish(&self, messages: Vec<Arc<Message>>, _: Option<Instant>) -> BoxFuture<'_, Vec<Publication>> {
        async move {
            let way = self.gate.approach(Effect::Publish);
            if way == Way::Shut {
                self.gate.pass().await;
            }
            let count = messages.len();
            let reach = if way == Way::Free(Some(Moment::Partly)) { count / 2 } else { count };
            for message in messages.into_iter().take(reach) {
                self.outside.received(Arc::unwrap_or_clone(message));
            }
            if matches!(way, Way::Free(Some(_))) {
                self.gate.strike();
            }
            self.gate.pass().await;
            vec![Publication::Confirmed; count]
        }
        .boxed()
    }
}
