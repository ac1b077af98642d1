//! Which shards a node gives to others that have less to do.

use crate::shard::{NodeId, Shard};

/// What rooms do and take: those of a node, or of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of the time of the threads that run a node's rooms, how much guests run, in millionths.
    pub processor: u32,
    /// Of their memories, in KiB.
    pub memory: u32,
    /// Open rooms.
    pub rooms: u32,
}

/// What a node may have without giving any away, however little others have.
const NEGLIGIBLE: u64 = 200_000;

/// Shards that are moved because of one measurement: they are seen in the next ones of both nodes.
const MAX_MOVES: usize = 8;

impl Load {
    /// All of it as one number: a million is a node that does nothing but run guests, or has 16 GiB of them, or
    /// 10,000 rooms. One number, since what is moved to even out one of them would come back for another.
    const fn weight(self) -> u64 {
        const MEMORY: u64 = 16 << 20;
        const ROOMS: u64 = 10_000;
        const ALL: u64 = 1_000_000;
        self.processor as u64 + self.memory as u64 * ALL / MEMORY + self.rooms as u64 * ALL / ROOMS
    }
}

/// Which shards of a node go where, so that it does not have much more to do than the one that has the least. So
/// little moves at a time that, if all others do the same, that node does not have more than this one then. One
/// that is full gives some away in any case, to one that has less to do.
#[must_use]
pub fn relieve(
    own: Load,
    is_full: bool,
    shards: &[(Shard, Load)],
    others: impl Iterator<Item = (NodeId, Load)>,
) -> Vec<(Shard, NodeId)> {
    let others: Vec<_> = others.map(|(node, load)| (load.weight(), node)).collect();
    let (own, nodes) = (own.weight(), others.len() as u64 + 1);
    let Some((least, node)) = others.into_iter().min() else {
        return Vec::new();
    };
    // More than a third above the other, and worth the trouble.
    let is_much = own > NEGLIGIBLE && own * 3 > least * 4;
    if own <= least || !is_much && !is_full {
        return Vec::new();
    }
    let mut left = (own - least) / nodes;
    let mut shards: Vec<_> = shards
        .iter()
        .map(|(shard, load)| (load.weight(), *shard))
        .collect();
    // The largest first: few moves are better than many.
    shards.sort_unstable_by(|a, b| b.cmp(a));
    let mut moves = Vec::new();
    for (load, shard) in shards {
        if moves.len() < MAX_MOVES && load > 0 && load <= left {
            left -= load;
            moves.push((shard, node));
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(processor: u32) -> Load {
        Load {
            processor,
            ..Load::default()
        }
    }

    /// Nodes by what their shards do; moves until nobody has anything to give away, and returns how many moves
    /// that took.
    fn settle(nodes: &mut [Vec<(Shard, Load)>]) -> usize {
        let mut count = 0;
        for _ in 0..200 {
            let total = |shards: &[(Shard, Load)]| Load {
                processor: shards.iter().map(|(_, load)| load.processor).sum(),
                memory: shards.iter().map(|(_, load)| load.memory).sum(),
                rooms: shards.iter().map(|(_, load)| load.rooms).sum(),
            };
            let totals: Vec<_> = nodes.iter().map(|shards| total(shards)).collect();
            let mut has_moved = false;
            for from in 0..nodes.len() {
                let others = (0..nodes.len()).filter(|n| *n != from);
                let others = others.map(|n| (NodeId(n as u64), totals[n]));
                for (shard, to) in relieve(totals[from], false, &nodes[from], others) {
                    let at = nodes[from].iter().position(|(it, _)| *it == shard);
                    let shard = nodes[from].remove(at.expect("it is this node's"));
                    nodes[to.0 as usize].push(shard);
                    count += 1;
                    has_moved = true;
                }
            }
            if !has_moved {
                return count;
            }
        }
        panic!("shards go to and fro");
    }

    #[test]
    fn busy_shards_are_shared_out() {
        let shards: Vec<_> = (0..60)
            .map(|n| (Shard(n), busy(if n < 6 { 100_000 } else { 1_000 })))
            .collect();
        let mut nodes = [shards, Vec::new(), Vec::new()];
        let moves = settle(&mut nodes);
        for shards in &nodes {
            let busy = shards.iter().filter(|(shard, _)| shard.0 < 6).count();
            assert!((1..=3).contains(&busy), "{nodes:?}");
        }
        assert!(moves <= 70, "{moves}");
    }

    #[test]
    fn a_node_with_little_to_do_gives_nothing_away() {
        let shards: Vec<_> = (0..60).map(|n| (Shard(n), busy(3_000))).collect();
        let mut nodes = [shards, Vec::new()];
        assert_eq!(settle(&mut nodes), 0);
    }

    #[test]
    fn a_full_node_gives_rooms_away_however_little_they_do() {
        let shards: Vec<_> = (0..10).map(|n| (Shard(n), busy(100))).collect();
        let others = || [(NodeId(1), busy(0))].into_iter();
        assert_eq!(relieve(busy(1_000), false, &shards, others()), []);
        assert_eq!(relieve(busy(1_000), true, &shards, others()).len(), 5);
    }

    #[test]
    fn one_shard_that_is_all_of_the_load_stays_and_others_leave_it() {
        let mut shards = vec![(Shard(0), busy(700_000))];
        shards.extend((1..21).map(|n| (Shard(n), busy(10_000))));
        let mut nodes = [shards, Vec::new()];
        settle(&mut nodes);
        assert!(nodes[0].iter().any(|(shard, _)| shard.0 == 0));
        assert_eq!(nodes[1].len(), 20);
    }

    #[test]
    fn nodes_share_rooms_and_memory_too() {
        let load = |n| Load {
            processor: 1_000,
            memory: if n < 30 { 400 << 10 } else { 0 },
            rooms: 20,
        };
        let shards: Vec<_> = (0..60).map(|n| (Shard(n), load(n))).collect();
        let mut nodes = [shards, Vec::new(), Vec::new()];
        settle(&mut nodes);
        for shards in &nodes {
            let memory = shards.iter().filter(|(shard, _)| shard.0 < 30).count();
            assert!((7..=14).contains(&memory), "{nodes:?}");
        }
    }

    #[test]
    fn whatever_the_loads_are_it_comes_to_an_end() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let mut random = |below: u32| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ((state >> 33) as u32) % below
            };
            let mut nodes = vec![Vec::new(); 2 + random(4) as usize];
            for shard in 0..=u8::MAX {
                let load = Load {
                    processor: random(4_000) * (1 + 30 * u32::from(random(20) == 0)),
                    memory: random(64 << 10),
                    rooms: random(50),
                };
                let node = random(nodes.len() as u32) as usize;
                nodes[node].push((Shard(shard), load));
            }
            settle(&mut nodes);
        }
    }
}
