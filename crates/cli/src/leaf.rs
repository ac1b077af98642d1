//! The flags of `serve` and `attach` that make rooms those of a leaf of a cluster.

use crate::serve::{run_server, run_server_until};
use clap::Args;
use stateroom_wasmi_cluster::{ClusterConfig, ClusterError, Leaf};
use stateroom_wasmi_server::{Server, ServerConfig};
use std::{error::Error, path::PathBuf, time::Duration};
use tokio::time::timeout;

#[derive(Args)]
#[command(next_help_heading = "Leaf of a cluster")]
pub(crate) struct LeafArgs {
    /// Let clients of a cluster's nodes reach the rooms that are here, as @NAME.ROOM: addresses of the
    /// cluster's NATS, separated by commas. Nobody needs to reach this server for that
    #[arg(long, value_name = "nats://HOST:PORT,…", requires = "leaf_name")]
    leaf_of: Option<String>,
    /// This leaf's name, which no other leaf has
    #[arg(long, value_name = "NAME", requires = "leaf_of")]
    leaf_name: Option<String>,
    /// The cluster's name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "main",
        requires = "leaf_of"
    )]
    leaf_cluster: String,
    /// File with the credentials for NATS
    #[arg(long, value_name = "FILE", requires = "leaf_of")]
    leaf_credentials: Option<PathBuf>,
}

impl LeafArgs {
    /// Joins the cluster, if there is one, and sets what the server needs for it.
    pub(crate) async fn join(
        self,
        config: ServerConfig,
    ) -> Result<(ServerConfig, Option<Leaf>), ClusterError> {
        let (Some(servers), Some(name)) = (self.leaf_of, self.leaf_name) else {
            return Ok((config, None));
        };
        let mut cluster = ClusterConfig::new(&servers, &name);
        cluster.name = self.leaf_cluster;
        cluster.credentials = self.leaf_credentials;
        let leaf = Leaf::join(cluster).await?;
        let config = config.leaf(Some(leaf.server()));
        Ok((config, Some(leaf)))
    }
}

/// Runs a server until SIGINT or SIGTERM; then a leaf says that it leaves, so that clients wait for it.
pub(crate) async fn run_leaf(
    server: Server,
    name: &str,
    leaf: Option<Leaf>,
) -> Result<(), Box<dyn Error>> {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let Some(leaf) = leaf else {
        return run_server(server, name).await;
    };
    let leaving = async move {
        if timeout(TIMEOUT, leaf.leave()).await.is_err() {
            log::warn!("the cluster was not told that this leaf ends");
        }
    };
    run_server_until(server, name, leaving).await
}
