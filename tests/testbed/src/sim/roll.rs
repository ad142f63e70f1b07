//! Whom a server knows: found by id and by place without a search.

use std::net::IpAddr;
use std::time::Duration;

use super::node::{Id, Known};

/// Where an entry stands; another may stand there after it is gone.
pub(super) type Place = usize;

const NOWHERE: u32 = u32::MAX;

/// Everybody a server knows of, those in handshake among them.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    entries: Vec<Option<Known>>,
    /// The place of each id.
    places: Vec<u32>,
}

impl Roll {
    /// Everybody.
    pub fn iter(&self) -> impl Iterator<Item = &Known> + Clone {
        self.entries.iter().flatten()
    }

    /// Who has this id.
    pub fn get(&self, id: Id) -> Option<&Known> {
        self.at(self.place(id)?)
    }

    /// Whether a handshake with whoever answers at this address is under way.
    pub fn is_greeting(&self, address: IpAddr) -> bool {
        self.iter().any(|known| known.id.is_none() && known.address == Some(address))
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Known> {
        self.entries.iter_mut().flatten()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Known> {
        let place = self.place(id)?;
        self.at_mut(place)
    }

    /// How many places there are, the empty ones among them.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn at(&self, place: Place) -> Option<&Known> {
        self.entries.get(place)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut Known> {
        self.entries.get_mut(place)?.as_mut()
    }

    /// Adds somebody; gives his place.
    pub(super) fn add(&mut self, known: Known) -> Place {
        let id = known.id;
        let place = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        match self.entries.get_mut(place) {
            Some(entry) => *entry = Some(known),
            None => self.entries.push(Some(known)),
        }
        if let Some(id) = id {
            self.note(id, place);
        }
        place
    }

    /// A handshake has come to a name.
    pub(super) fn name(&mut self, place: Place, id: Id) {
        if let Some(known) = self.at_mut(place) {
            known.id = Some(id);
            self.note(id, place);
        }
    }

    /// Removes whoever stands there.
    pub(super) fn remove(&mut self, place: Place) {
        if let Some(id) = self.entries.get_mut(place).and_then(Option::take).and_then(|known| known.id) {
            self.places[id] = NOWHERE;
        }
    }

    /// Removes who has this id.
    pub(super) fn forget(&mut self, id: Id) {
        if let Some(place) = self.place(id) {
            self.remove(place);
        }
    }

    /// Handshakes end with the process, and so do links and what was heard over them.
    pub(super) fn restart(&mut self, now: Duration) {
        for place in 0..self.entries.len() {
            match self.at_mut(place) {
                Some(known) if known.id.is_some() => known.restart(now),
                _ => self.remove(place),
            }
        }
    }

    fn place(&self, id: Id) -> Option<Place> {
        self.places.get(id).filter(|place| **place != NOWHERE).map(|place| *place as usize)
    }

    fn note(&mut self, id: Id, place: Place) {
        if self.places.len() <= id {
            self.places.resize(id + 1, NOWHERE);
        }
        self.places[id] = u32::try_from(place).unwrap_or(NOWHERE);
    }
}
