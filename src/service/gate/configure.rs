//! Which requesters there are, and their limits.

use std::collections::{HashMap, HashSet};

use super::requester::Requester;
use super::state::State;
use super::{Gate, Organization};
use crate::domain::command::OrganizationId;
use crate::domain::traffic::Moment;

impl Gate {
    /// Takes over what is configured. Organisations that are not named any more are forgotten, and who waits is turned away.
    /// Of those in `renewed`, which have other credentials, say, is forgotten that they failed.
    pub fn configure(
        &self,
        organizations: &HashMap<OrganizationId, Organization>,
        renewed: &HashSet<OrganizationId>,
    ) {
        self.change(|state, now| state.configure(organizations, renewed, now));
    }

    /// Divides what may be sent in a second among so many instances.
    pub fn divide(&self, instances: u32) {
        self.change(|state, _| state.divide(instances));
    }
}

impl State {
    pub(super) fn configure(
        &mut self,
        organizations: &HashMap<OrganizationId, Organization>,
        renewed: &HashSet<OrganizationId>,
        now: Moment,
    ) {
        self.is_configured = true;
        let instances = self.instances;
        let stays = |id: &OrganizationId, known: &Requester| {
            organizations.get(id).is_some_and(|organization| *organization.upstream == *known.upstream)
        };
        let gone: Vec<_> =
            self.requesters.iter().filter(|(id, known)| !stays(id, known)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id, now);
        }
        for (id, organization) in organizations {
            let was_shut = self.requesters.contains_key(id) && self.shut(*id, now).is_some();
            let requester = self.enter(*id, Some(organization));
            requester.configure(Some(organization.clone()), instances);
            if renewed.contains(id) {
                requester.renew();
            }
            if was_shut && self.shut(*id, now).is_none() {
                self.reopen(*id);
            }
            self.list(*id);
        }
        self.grants.is_changed = true;
    }

    /// Divides what may be sent in a second among so many instances.
    pub(super) fn divide(&mut self, instances: u32) {
        self.instances = instances;
        let ids: Vec<_> = self.requesters.keys().copied().collect();
        for id in ids {
            if let Some(requester) = self.requesters.get_mut(&id) {
                requester.configure(requester.configured.clone(), instances);
            }
            self.list(id);
        }
        self.grants.is_changed = true;
    }

    /// Those who wait hear of it by the end of their channel.
    fn remove(&mut self, id: OrganizationId, now: Moment) {
        let Some(requester) = self.requesters.remove(&id) else { return };
        if requester.is_trying {
            // Nobody will tell what came of it.
            self.give_back_try(&requester.upstream, now);
        }
        let Some(upstream) = self.upstreams.get_mut(&requester.upstream) else { return };
        upstream.in_flight = upstream.in_flight.saturating_sub(requester.in_flight);
        upstream.count(upstream.requesters - 1, &self.settings);
        upstream.listed.retain(|listed| *listed != id);
        upstream.concurrency.forget(id);
        upstream.turns.forget(id);
        if upstream.requesters == 0 {
            self.upstreams.remove(&requester.upstream);
        }
    }
}
