//! Plays a record to a disk, makes images of it at every moment that matters, and has each judged.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use kvclient::position::Seq;

use super::{
    choice::{Effort, choices},
    disk::{Arrived, Disk},
    record::Recorded,
    trace::{self, Event},
};
use crate::support::seeded;

/// Of so many images a real node starts on one.
const STARTED_EVERY: usize = 50;

/// Images that are told of when they are bad.
const SHOWN: usize = 5;

/// What was tried.
#[derive(Default)]
pub(super) struct Found {
    /// Moments at which images were made, images, and those that were bad.
    moments: usize,
    pub(super) states: usize,
    pub(super) bad: usize,
    /// The last seq that was promised.
    pub(super) promises: usize,
    /// What the node had done.
    deeds: String,
    /// Images that were started by a real node.
    pub(super) started: usize,
    /// Images that are kept for that.
    pub(super) kept: Vec<(tempfile::TempDir, Seq)>,
}

impl Found {
    pub(super) fn told(&self, whose: &str) -> String {
        format!(
            "{whose}: {} states at {} moments, {} bad, {} started by a real node; it had {}",
            self.states, self.moments, self.bad, self.started, self.deeds
        )
    }

    pub(super) fn add(&mut self, other: Self) {
        self.moments += other.moments;
        self.states += other.states;
        self.bad += other.bad;
        self.promises += other.promises;
    }
}

/// Plays the record and judges images, until so many are bad.
pub(super) fn explore(recorded: &Recorded, effort: Effort, most_bad: usize) -> Found {
    let mut search = Search {
        recorded,
        effort,
        rng: seeded(),
        disk: Disk::new(&recorded.root),
        promised: 0,
        found: Found::default(),
    };
    for event in &recorded.events {
        if search.disk.is_sync(event) {
            search.judge_all();
        }
        search.disk.apply(event);
        if let Event::Promised(seq) = event
            && *seq > search.promised
        {
            search.promised = *seq;
            search.judge_all();
        }
        if search.found.bad >= most_bad {
            break;
        }
    }
    let mut found = search.found;
    found.deeds = trace::deeds(&recorded.events);
    found.promises = usize::try_from(search.promised).expect("few");
    found
}

/// A record that is being played.
struct Search<'a> {
    recorded: &'a Recorded,
    effort: Effort,
    rng: fastrand::Rng,
    disk: Disk,
    /// The newest seq that something said was durable.
    promised: Seq,
    found: Found,
}

impl Search<'_> {
    /// Makes and judges the images of this moment.
    fn judge_all(&mut self) {
        self.found.moments += 1;
        let mut seen = HashSet::new();
        for arrived in choices(self.disk.pending(), self.effort, &mut self.rng) {
            if seen.insert(arrived.clone()) {
                self.judge(&arrived);
            }
        }
    }

    fn judge(&mut self, arrived: &[Arrived]) {
        let found = &mut self.found;
        let image = image_dir();
        self.disk
            .write_image(image.path(), arrived)
            .expect("an image");
        let data = data_in(image.path(), self.recorded);
        found.states += 1;
        if let Err(why) = self
            .recorded
            .owner
            .judge(&data, &self.recorded.truth, self.promised)
        {
            found.bad += 1;
            if found.bad <= SHOWN {
                let arrived = describe(&self.disk, arrived);
                eprintln!("bad, promised {}: {why}\n{arrived}", self.promised);
            }
        }
        if found.states.is_multiple_of(STARTED_EVERY) {
            // Anew: the first one has been recovered.
            let image = image_dir();
            self.disk
                .write_image(image.path(), arrived)
                .expect("an image");
            found.kept.push((image, self.promised));
        }
    }
}

/// What of the pending changes arrived, for a person.
fn describe(disk: &Disk, arrived: &[Arrived]) -> String {
    let mut text = String::new();
    for (change, arrived) in disk.pending().iter().zip(arrived) {
        let change = format!("{change:?}");
        text.push_str(&format!("  {arrived:?}: {change:.100}\n"));
    }
    text
}

pub(super) fn data_in(image: &Path, recorded: &Recorded) -> PathBuf {
    image.join(recorded.root.file_name().expect("a name"))
}

/// A directory in memory, if the machine has one.
fn image_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .expect("a directory")
}
