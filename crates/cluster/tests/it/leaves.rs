//! Leaves and what nodes know of them.

use crate::{Node, TIMEOUT, config, nats::NatsServer, proxy::Proxy, room_of};
use stateroom_wasmi_cluster::{Admin, ClusterError, Leaf, Shard};
use stateroom_wasmi_server::Location;
use std::net::SocketAddr;
use tokio::{runtime::Runtime, time::timeout};

/// A leaf without a server.
struct RunningLeaf {
    runtime: Runtime,
    leaf: Leaf,
}

impl RunningLeaf {
    fn join(url: &str, name: &str) -> Result<Self, ClusterError> {
        let runtime = Runtime::new().expect("it starts");
        let leaf = runtime.block_on(Leaf::join(config(url, name)))?;
        Ok(Self { runtime, leaf })
    }

    fn wait_for_nodes(&self, are_right: impl Fn(&[SocketAddr]) -> bool) {
        let mut nodes = self.leaf.server().nodes;
        let waiting = async {
            timeout(TIMEOUT, nodes.wait_for(|nodes| are_right(nodes)))
                .await
                .map(|nodes| nodes.map(drop))
        };
        let found = self.runtime.block_on(waiting).expect("it happens");
        found.expect("the leaf runs");
    }

    fn leave(self) {
        self.runtime.block_on(self.leaf.leave());
    }
}

impl Node {
    fn wait_for_leaf(&self, room: &str, leaf: Option<&RunningLeaf>) {
        let location = leaf.map_or(Location::Unknown, |leaf| Location::Leaf(leaf.leaf.id().0));
        self.wait(|node| node.directory.locate(room) == location);
    }
}

#[test]
fn nodes_know_the_leaves_and_leaves_the_nodes() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    // There must be a cluster.
    let early = RunningLeaf::join(&server.url, "den");
    assert!(matches!(early.err(), Some(ClusterError::Setup(_))));
    let a = Node::join(&server, "a");
    let b = Node::join(&server, "b");
    a.wait_for_shards(|shards| shards > 0);
    let den = RunningLeaf::join(&server.url, "den").expect("it joins");
    let attic = RunningLeaf::join(&server.url, "attic").expect("it joins");
    for node in [&a, &b] {
        for room in ["@den.lobby", "@den", "@den.a.b"] {
            node.wait_for_leaf(room, Some(&den));
        }
        node.wait_for_leaf("@attic.lobby", Some(&attic));
        for room in ["@de.n", "@", "@.den", "@Den.lobby"] {
            assert_eq!(node.directory.locate(room), Location::Unknown, "{room}");
        }
        assert_eq!(node.directory.leaf([0; 32]), None);
    }
    let addresses = [a.address, b.address];
    den.wait_for_nodes(|nodes| addresses.iter().all(|address| nodes.contains(address)));
    // They are no nodes, and get no shards.
    a.wait(|a| {
        let location = |shard| a.directory.locate(&room_of(shard));
        Shard::all().all(|shard| location(shard) != Location::Unknown)
    });
    let runtime = Runtime::new().expect("it starts");
    let admin = runtime.block_on(Admin::connect(&config(&server.url, "admin")));
    let admin = admin.expect("it connects");
    let leaves = runtime.block_on(admin.leaves()).expect("NATS answers");
    let names: Vec<_> = leaves.iter().map(|leaf| (&*leaf.name, leaf.id)).collect();
    assert_eq!(names, [("attic", attic.leaf.id()), ("den", den.leaf.id())]);
    assert_eq!(
        runtime.block_on(admin.nodes()).expect("it answers").len(),
        2
    );
    den.leave();
    a.wait_for_leaf("@den.lobby", None);
    a.wait_for_leaf("@attic.lobby", Some(&attic));
    let metrics = a.cluster.as_ref().expect("it runs").metrics();
    assert_eq!(metrics.leaves, 1);
    let den = RunningLeaf::join(&server.url, "den").expect("it joins again");
    a.wait_for_leaf("@den.lobby", Some(&den));
}

#[test]
fn a_name_is_one_leafs() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards > 0);
    let proxy = Proxy::to(&server.url);
    let first = RunningLeaf::join(&proxy.url, "den").expect("it joins");
    a.wait_for_leaf("@den", Some(&first));
    let refused = RunningLeaf::join(&server.url, "den").err();
    assert!(
        matches!(&refused, Some(ClusterError::LeafTaken(name)) if name == "den"),
        "{refused:?}"
    );
    // One that cannot be heard is gone, as far as the cluster can tell.
    proxy.set_cut(true);
    a.wait_for_leaf("@den", None);
    let second = RunningLeaf::join(&server.url, "den").expect("it joins");
    a.wait_for_leaf("@den", Some(&second));
    // The first one is back, and notices.
    first.wait_for_nodes(|nodes| !nodes.is_empty());
    proxy.set_cut(false);
    first.wait_for_nodes(<[_]>::is_empty);
    a.wait_for_leaf("@den", Some(&second));
    // It gets its name again when it is free.
    second.leave();
    a.wait_for_leaf("@den", Some(&first));
    first.wait_for_nodes(|nodes| nodes.contains(&a.address));
}

#[test]
fn one_that_has_died_comes_back() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards > 0);
    let first = RunningLeaf::join(&server.url, "den").expect("it joins");
    a.wait_for_leaf("@den", Some(&first));
    // As a process that is killed.
    drop(first);
    let second = RunningLeaf::join(&server.url, "den").expect("it joins");
    a.wait_for_leaf("@den", Some(&second));
}

/// The permissions that a leaf needs are those of docs/cluster.md.
#[test]
fn a_leaf_needs_few_permissions_and_can_do_little_with_them() {
    let page = include_str!("../../../../docs/cluster.md");
    let example = page.split("```leaf\n").nth(1).expect("it has an example");
    let example = example.split("```").next().expect("it ends");
    let Some(server) = NatsServer::start_with(example) else {
        return;
    };
    let url = |user: &str| {
        server
            .url
            .replace("nats://", &format!("nats://{user}:secret@"))
    };
    let a = Node::join_with(config(&url("node"), "a")).expect("it joins");
    a.wait_for_shards(|shards| shards > 0);
    let den = RunningLeaf::join(&url("den"), "den").expect("it joins");
    a.wait_for_leaf("@den.lobby", Some(&den));
    den.wait_for_nodes(|nodes| nodes.contains(&a.address));
    // Neither another leaf's name nor what nodes can do.
    let other = RunningLeaf::join(&url("den"), "attic").err();
    assert!(matches!(other, Some(ClusterError::Setup(_))), "{other:?}");
    let node = Node::join_with(config(&url("den"), "b")).err();
    assert!(matches!(node, Some(ClusterError::Setup(_))), "{node:?}");
    den.leave();
    a.wait_for_leaf("@den.lobby", None);
    let den = RunningLeaf::join(&url("den"), "den").expect("it joins again");
    a.wait_for_leaf("@den.lobby", Some(&den));
}
