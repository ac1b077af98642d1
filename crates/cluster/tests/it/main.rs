//! Tests of the cluster.

mod sim;
