//! The data directory: whose it is, and which part of it is in force.
//!
//! ```text
//! DATA/node.lock          held (flock) while a node runs on it
//! DATA/node.toml          the marker: format, node id, shard, slots, role, state, history
//! DATA/CURRENT            name of the generation in force, "gen-1"
//! DATA/gen-1/log, lmdb    log segments and LMDB environment of that generation
//! DATA/gen-1/lmdb.new     a smaller copy of lmdb that is being made (`kvnode compact`)
//! DATA/gen-2.new          a generation that is being built
//! DATA/diverged/          tails that parted from the primary's log, kept for a person
//! ```
//!
//! The marker is what tells an emptied directory from a new one: once it says `ready`, missing data is a reason
//! to refuse, never to start afresh. `creating` means that nothing was ever acknowledged from here, so what is
//! there may be made anew. Marker and CURRENT are replaced by writing a new file, syncing it, renaming it over the
//! old and syncing the directory.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use kvclient::{
    faults::{self, Guarantee},
    position::Epoch,
    shard_map::{Role, Shard},
};

use crate::{
    durable::{DataError, failed, make_dir, replace, sync_dir},
    marker::{Marker, Order, State},
};

/// Beside `lmdb` in a generation: a copy that takes its place when it is whole.
pub(crate) const UNFINISHED_LMDB: &str = "lmdb.new";

/// A locked data directory and its marker.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    marker: Marker,
    _lock: File,
}

impl DataDir {
    /// Locks a directory, made if it is not there, and checks that it is this node's.
    ///
    /// # Errors
    /// [`DataError`]: the node must not start.
    pub fn open(path: &Path, shard: &Shard, role: Role, order: Order) -> Result<Self, DataError> {
        if !path.join("node.toml").exists() {
            make_dir(path)?;
        }
        let lock = lock(path)?;
        let marker = match Marker::read(path)? {
            Some(marker) => marker.admit(path, shard, role, order)?,
            None => fresh(path, shard, role)?,
        };
        let mut dir = Self {
            path: path.to_owned(),
            marker,
            _lock: lock,
        };
        if faults::is_off(Guarantee::Marker) && dir.check_there().is_err() {
            dir.marker.state = State::Creating;
        }
        dir.save()?;
        match dir.marker.state {
            State::Creating => dir.remove_generations(|_| true)?,
            State::Copying | State::Ready => {
                dir.check_there()?;
                dir.remove_unfinished()?;
            }
            State::Rejoining => {}
        }
        Ok(dir)
    }

    /// Locks a directory to look at what it holds; changes nothing.
    ///
    /// # Errors
    /// [`DataError`]: there is no data to look at, or a node runs on it.
    pub fn look(path: &Path) -> Result<Self, DataError> {
        let refused = |problem: &str| DataError::Refused(format!("{}: {problem}", path.display()));
        if !path.join("node.toml").exists() {
            return Err(refused(
                "not a data directory of a node: it has no node.toml",
            ));
        }
        let lock = lock(path)?;
        let marker = Marker::read(path)?.ok_or_else(|| refused("node.toml has gone"))?;
        Ok(Self {
            path: path.to_owned(),
            marker,
            _lock: lock,
        })
    }

    /// The marker.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The node's id.
    pub fn node_id(&self) -> u64 {
        u64::from_str_radix(&self.marker.node_id, 16).unwrap_or_default()
    }

    /// The history of its log, once it is known.
    pub fn history(&self) -> Option<u128> {
        u128::from_str_radix(&self.marker.history, 16).ok()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The generation in force.
    ///
    /// # Errors
    /// [`DataError`] if `CURRENT` cannot be read.
    pub fn current(&self) -> Result<PathBuf, DataError> {
        let file = self.path.join("CURRENT");
        let name = fs::read_to_string(&file).map_err(failed("cannot read", &file))?;
        Ok(self.path.join(name.trim()))
    }

    /// An empty directory in which the next generation is built, its number larger than all that are there. What
    /// was left of an unfinished one is removed.
    ///
    /// # Errors
    /// [`DataError`] if the directory cannot be read or made.
    pub fn new_generation(&self) -> Result<PathBuf, DataError> {
        self.remove_generations(|generation| generation.unfinished)?;
        let all = generations(&self.path)?;
        let next = all
            .iter()
            .map(|generation| generation.number)
            .max()
            .unwrap_or(0)
            + 1;
        let path = self.path.join(format!("gen-{next}.new"));
        fs::create_dir(&path).map_err(failed("cannot make", &path))?;
        sync_dir(&self.path)?;
        Ok(path)
    }

    /// Gives a generation that is built its name. It is not in force yet.
    ///
    /// # Errors
    /// [`DataError`]: it is still unfinished.
    pub fn finish_generation(&self, unfinished: &Path) -> Result<PathBuf, DataError> {
        let path = unfinished.with_extension("");
        sync_dir(unfinished)?;
        fs::rename(unfinished, &path).map_err(failed("cannot rename", unfinished))?;
        faults::point("generation.named");
        sync_dir(&self.path)?;
        Ok(path)
    }

    /// Puts a finished generation in force; from now on its absence is a loss.
    ///
    /// # Errors
    /// [`DataError`]: the old generation is still in force.
    pub fn install(
        &mut self,
        generation: &Path,
        history: u128,
        state: State,
    ) -> Result<(), DataError> {
        let name = generation
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // CURRENT first: until the marker follows, the state before (creating, rejoining) has the work done anew.
        replace(&self.path, "CURRENT", format!("{name}\n").as_bytes())?;
        faults::point("generation.current");
        self.marker.state = state;
        self.marker.history = format!("{history:032x}");
        self.save()
    }

    /// A replica's first copy has reached the primary.
    ///
    /// # Errors
    /// [`DataError`]: it is not remembered.
    pub fn copied(&mut self) -> Result<(), DataError> {
        self.marker.state = State::Ready;
        self.save()
    }

    /// Remembers that the data is wrong, until `--rejoin`.
    ///
    /// # Errors
    /// [`DataError`]: it is not remembered.
    pub fn distrust(&mut self, why: &str) -> Result<(), DataError> {
        self.marker.distrust = why.to_owned();
        self.save()
    }

    /// Remembers that another node reigns in `epoch`.
    ///
    /// # Errors
    /// [`DataError`]: it is not remembered.
    pub fn fence(&mut self, epoch: Epoch) -> Result<(), DataError> {
        self.marker.fenced_by = self.marker.fenced_by.max(epoch);
        self.save()
    }

    fn save(&self) -> Result<(), DataError> {
        self.marker.save(&self.path)
    }

    fn remove_generations(&self, which: impl Fn(&Generation) -> bool) -> Result<(), DataError> {
        for generation in generations(&self.path)?
            .iter()
            .filter(|generation| which(generation))
        {
            let path = &generation.path;
            fs::remove_dir_all(path).map_err(failed("cannot remove unfinished", path))?;
        }
        Ok(())
    }

    /// Removes what was built and never put in force. Older generations are a person's to remove.
    fn remove_unfinished(&self) -> Result<(), DataError> {
        let in_force = self.current()?;
        let copy = in_force.join(UNFINISHED_LMDB);
        if copy.exists() {
            fs::remove_dir_all(&copy).map_err(failed("cannot remove unfinished", &copy))?;
        }
        let all = generations(&self.path)?;
        let number = all
            .iter()
            .find(|generation| generation.path == in_force)
            .map(|generation| generation.number);
        let Some(number) = number else { return Ok(()) };
        self.remove_generations(|generation| generation.unfinished || generation.number > number)
    }

    fn check_there(&self) -> Result<(), DataError> {
        let lost = |what: String| {
            DataError::Refused(format!(
                "{}: this node has stored data before, and {what}. It refuses to start, because an empty node must \
                 never be followed. Put the data back, or, if another node of the shard has it, start this one once \
                 with --rejoin as a replica",
                self.path.display()
            ))
        };
        let current = self.current().map_err(|_| lost("CURRENT is gone".into()))?;
        for part in [current.join("lmdb/data.mdb"), current.join("log")] {
            if !part.exists() {
                return Err(lost(format!("{} is gone", part.display())));
            }
        }
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, DataError> {
    use rustix::fs::{FlockOperation, flock};
    let file = path.join("node.lock");
    let options = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file);
    let lock = options.map_err(failed("cannot open", &file))?;
    if faults::is_off(Guarantee::Lock) {
        return Ok(lock);
    }
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DataError::InUse(path.to_owned())),
        Err(error) => Err(failed("cannot lock", &file)(error.into())),
    }
}

fn fresh(path: &Path, shard: &Shard, role: Role) -> Result<Marker, DataError> {
    if !generations(path)?.is_empty() || path.join("CURRENT").exists() {
        return Err(DataError::Refused(format!(
            "{} holds data but its marker node.toml is gone, so nobody can say whose it is. Put node.toml back, or \
             choose an empty directory",
            path.display()
        )));
    }
    Ok(Marker::fresh(shard, role))
}

/// A generation's directory.
struct Generation {
    path: PathBuf,
    number: u64,
    unfinished: bool,
}

fn generations(path: &Path) -> Result<Vec<Generation>, DataError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("cannot read", path))? {
        let path = entry.map_err(failed("cannot read", path))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(number) = name.strip_prefix("gen-") else {
            continue;
        };
        let (number, unfinished) = number
            .strip_suffix(".new")
            .map_or((number, false), |number| (number, true));
        if let Ok(number) = number.parse() {
            found.push(Generation {
                path,
                number,
                unfinished,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kvclient::shard_map::{NodeEntry, even_slots};

    use super::*;

    fn shard(name: &str, count: u16) -> Shard {
        let primary = NodeEntry {
            address: "h:1".parse().expect("address"),
            zone: None,
        };
        Shard {
            name: name.into(),
            idx: 0,
            slots: vec![even_slots(0, count)],
            primary,
            replicas: Vec::new(),
        }
    }

    fn open(path: &Path, role: Role, order: Order) -> Result<DataDir, DataError> {
        DataDir::open(path, &shard("s", 2), role, order)
    }

    /// A directory in which something was stored.
    fn filled(role: Role) -> tempfile::TempDir {
        let temp = tempfile::tempdir().expect("tempdir");
        let mut dir = open(temp.path(), role, Order::None).expect("fresh");
        fill(&mut dir);
        temp
    }

    fn fill(dir: &mut DataDir) {
        let unfinished = dir.new_generation().expect("generation");
        fs::create_dir_all(unfinished.join("lmdb")).expect("dir");
        fs::create_dir_all(unfinished.join("log")).expect("dir");
        fs::write(unfinished.join("lmdb/data.mdb"), b"x").expect("file");
        let generation = dir.finish_generation(&unfinished).expect("finished");
        dir.install(&generation, 7, State::Ready)
            .expect("installed");
    }

    fn refusal(result: Result<DataDir, DataError>) -> String {
        match result {
            Err(DataError::Refused(message)) => message,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn the_same_node_comes_back() {
        let temp = filled(Role::Primary);
        let dir = open(temp.path(), Role::Primary, Order::None).expect("its own");
        assert_eq!((dir.history(), dir.marker().state), (Some(7), State::Ready));
        assert!(dir.current().expect("current").ends_with("gen-1"));
        assert!(dir.new_generation().expect("new").ends_with("gen-2.new"));
    }

    #[test]
    fn one_process_at_a_time() {
        let temp = filled(Role::Primary);
        let _first = open(temp.path(), Role::Primary, Order::None).expect("its own");
        assert!(matches!(
            open(temp.path(), Role::Primary, Order::None),
            Err(DataError::InUse(_))
        ));
    }

    #[test]
    fn what_the_map_contradicts_is_refused() {
        let temp = filled(Role::Replica);
        let other_shard = DataDir::open(temp.path(), &shard("t", 2), Role::Replica, Order::None);
        assert!(refusal(other_shard).contains("holds shard \"s\""));
        let other_slots = DataDir::open(temp.path(), &shard("s", 3), Role::Replica, Order::None);
        assert!(refusal(other_slots).contains("0-8191"));
        assert!(refusal(open(temp.path(), Role::Primary, Order::None)).contains("--promote"));
        open(temp.path(), Role::Primary, Order::Promote).expect("promoted");
        open(temp.path(), Role::Primary, Order::None).expect("and stays so");
        assert!(refusal(open(temp.path(), Role::Replica, Order::None)).contains("--rejoin"));
        let rejoining = open(temp.path(), Role::Replica, Order::Rejoin).expect("rejoins");
        assert_eq!(rejoining.marker().state, State::Rejoining);
    }

    #[test]
    fn lost_data_is_not_a_new_node() {
        for lost in ["gen-1", "gen-1/log", "gen-1/lmdb/data.mdb", "CURRENT"] {
            let temp = filled(Role::Primary);
            let path = temp.path().join(lost);
            if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            }
            .expect("removed");
            assert!(
                refusal(open(temp.path(), Role::Primary, Order::None)).contains("is gone"),
                "{lost}"
            );
        }
        let temp = filled(Role::Primary);
        fs::remove_file(temp.path().join("node.toml")).expect("removed");
        assert!(refusal(open(temp.path(), Role::Primary, Order::None)).contains("node.toml"));
    }

    #[test]
    fn what_was_never_ready_is_made_anew() {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = open(temp.path(), Role::Primary, Order::None).expect("fresh");
        dir.new_generation().expect("generation");
        drop(dir);
        let dir = open(temp.path(), Role::Primary, Order::None).expect("again");
        assert!(
            dir.new_generation()
                .expect("generation")
                .ends_with("gen-1.new")
        );
    }

    #[test]
    fn a_fence_is_remembered_beyond_promotion() {
        let temp = filled(Role::Primary);
        open(temp.path(), Role::Primary, Order::None)
            .expect("its own")
            .fence(9)
            .expect("fenced");
        let dir = open(temp.path(), Role::Primary, Order::None).expect("its own");
        assert_eq!(dir.marker().fenced_by, 9);
        drop(dir);
        let dir = open(temp.path(), Role::Primary, Order::Promote).expect("its own");
        assert_eq!(
            dir.marker().fenced_by,
            9,
            "the next reign has to be newer than it"
        );
    }

    #[test]
    fn what_was_built_and_never_in_force_is_removed() {
        let temp = filled(Role::Replica);
        let dir = open(temp.path(), Role::Replica, Order::None).expect("its own");
        let built = dir.new_generation().expect("generation");
        dir.finish_generation(&built).expect("finished");
        let half = dir.new_generation().expect("generation");
        assert!(half.ends_with("gen-3.new"));
        drop(dir);
        let dir = open(temp.path(), Role::Replica, Order::None).expect("its own");
        assert!(dir.current().expect("current").ends_with("gen-1"));
        assert!(
            dir.new_generation()
                .expect("generation")
                .ends_with("gen-2.new")
        );
        assert!(temp.path().join("gen-1/lmdb/data.mdb").exists());
    }

    #[test]
    fn data_set_aside_is_never_removed() {
        let temp = filled(Role::Replica);
        fs::remove_file(temp.path().join("CURRENT")).expect("removed");
        let dir = open(temp.path(), Role::Replica, Order::Rejoin).expect("rejoins");
        assert!(
            dir.new_generation()
                .expect("generation")
                .ends_with("gen-2.new")
        );
        assert!(temp.path().join("gen-1/lmdb/data.mdb").exists());
    }

    #[test]
    fn what_was_never_copied_is_not_promoted() {
        let temp = tempfile::tempdir().expect("tempdir");
        open(temp.path(), Role::Replica, Order::None).expect("fresh");
        assert!(
            refusal(open(temp.path(), Role::Primary, Order::Promote)).contains("never finished")
        );
        // What a rejoin set aside is still there to be taken after all.
        let temp = filled(Role::Replica);
        open(temp.path(), Role::Replica, Order::Rejoin).expect("rejoins");
        let dir = open(temp.path(), Role::Primary, Order::Promote).expect("promoted");
        assert_eq!((dir.marker().state, dir.history()), (State::Ready, Some(7)));
    }
}
