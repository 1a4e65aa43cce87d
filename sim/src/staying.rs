//! Users who go for longer than a moment, in some worlds: when the node has ended, and in between.

use crate::world::World;

impl World {
    /// The node has ended: some do not come back with the others.
    pub(crate) fn keep_away(&mut self) {
        let (now, users) = (self.now, &self.users);
        if let Some(rng) = &mut self.staying {
            let away = users.iter().filter_map(|user| {
                let until = now + rng.between(200_000, 1_000_000);
                rng.one_in(2).then(|| (user.clone(), until))
            });
            self.away.extend(away);
        }
    }

    /// A user goes for longer, with all its devices, in some worlds.
    pub(crate) fn stay_away(&mut self, client: usize) {
        if let Some(rng) = &mut self.staying
            && rng.one_in(2)
        {
            let until = self.now + rng.between(600_000, 1_500_000);
            let user = self.clients[client].user.clone();
            let devices = (0..self.clients.len()).filter(|device| self.clients[*device].user == user);
            devices.collect::<Vec<_>>().into_iter().for_each(|device| self.end_client(device));
            self.away.insert(user, until);
        }
    }

    /// Whether a client does not come back for now.
    pub(crate) fn is_away(&self, client: usize) -> bool {
        self.away.get(&self.clients[client].user).is_some_and(|until| *until > self.now)
    }
}
