//! File descriptors: as many as connections may take, and some that they may not.
//!
//! A new log segment needs a descriptor. When connections had taken the last one, the node could not go on writing and
//! ended with exit code 5: whoever opened enough connections could stop it. So the process asks for as many as it may
//! need, and where it may not have them, takes fewer connections.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Those of the log, of LMDB, of clients to other nodes and of the runtimes: about 40 at rest.
const OWN: u64 = 64;

/// How many connections may be open: those that are wanted, or fewer, so that enough descriptors are left.
pub(crate) fn room_for_connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(OWN);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
        limit.current = Some(raised);
        // What is refused here shows in what is read back.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let taken = allowed(wanted, getrlimit(Resource::Nofile).current);
    if taken < wanted {
        tracing::warn!(
            wanted,
            taken,
            "fewer connections are taken than --max-connections: the limit on open files is too low (ulimit -n)"
        );
    }
    taken
}

/// At least one, or nobody could ask what is wrong.
fn allowed(wanted: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return wanted;
    };
    let room = usize::try_from(descriptors.saturating_sub(OWN)).unwrap_or(usize::MAX);
    wanted.min(room).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_over() {
        for (wanted, descriptors, taken) in [
            (4_096, None, 4_096),
            (4_096, Some(1 << 20), 4_096),
            (4_096, Some(1_024), 960),
            (4_096, Some(65), 1),
            (4_096, Some(10), 1),
            (8, Some(1_024), 8),
        ] {
            assert_eq!(
                allowed(wanted, descriptors),
                taken,
                "{wanted} of {descriptors:?}"
            );
        }
    }
}
