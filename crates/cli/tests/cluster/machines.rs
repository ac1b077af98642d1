//! The processes.

use crate::{
    network::Network,
    proxy::{Proxy, start_all},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

/// Machines: of each, a node and a server of NATS.
pub const NODES: usize = 3;

/// The upper bound on every wait.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// The program of NATS; none if there is none, and so the test is skipped.
pub fn nats_program() -> Option<PathBuf> {
    let named = env::var_os("NATS_SERVER").filter(|name| !name.is_empty());
    let is_named = named.is_some();
    let program = named.map_or_else(|| "nats-server".into(), PathBuf::from);
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    assert!(!is_named, "NATS_SERVER is {program:?}, which cannot be run");
    eprintln!("SKIPPED: there is no nats-server (set NATS_SERVER or the path)");
    None
}

/// How machines are started.
pub struct Setup {
    /// Whether there are namespaces, if they can be had, and proxies.
    pub can_be_cut: bool,
    /// Nodes that are started at first.
    pub nodes: usize,
    /// Further arguments of theirs.
    pub args: &'static [&'static str],
    /// Their module, in either format.
    pub module: Vec<u8>,
}

/// Processor time of all nodes, and of all servers of NATS.
pub struct ProcessorTime {
    pub nodes: Duration,
    pub nats: Duration,
}

/// All processes; killed in the end.
pub struct Machines {
    pub network: Network,
    folder: PathBuf,
    nats_program: PathBuf,
    nats_ports: Vec<u16>,
    nats: Vec<Option<Child>>,
    cuts: Vec<watch::Sender<bool>>,
    proxies: Vec<Vec<Proxy>>,
    /// Where clients connect.
    ports: Vec<u16>,
    peer_ports: Vec<u16>,
    nodes: Vec<Option<Child>>,
    module: PathBuf,
    args: &'static [&'static str],
}

impl Machines {
    pub async fn start(nats_program: &Path, setup: Setup) -> Self {
        let folder = env::temp_dir().join(format!("stateroom-cluster-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let module = folder.join("room.wasm");
        fs::write(&module, setup.module).expect("the folder can be written");
        let ports = free_ports(4 * NODES);
        let (nats_ports, routes) = (ports[..NODES].to_vec(), &ports[NODES..2 * NODES]);
        let network = match setup.can_be_cut {
            true => Network::new(NODES),
            false => Network::of_this_machine(),
        };
        for (n, port) in nats_ports.iter().enumerate() {
            let config = nats_config(&folder, n, *port, routes, &network);
            fs::write(folder.join(format!("nats-{n}.conf")), config).expect("it can be written");
        }
        let mut machines = Self {
            network,
            nats_program: nats_program.into(),
            nats: (0..NODES).map(|_| None).collect(),
            cuts: (0..NODES).map(|_| watch::Sender::new(false)).collect(),
            proxies: Vec::new(),
            ports: ports[2 * NODES..3 * NODES].to_vec(),
            peer_ports: ports[3 * NODES..].to_vec(),
            nodes: (0..NODES).map(|_| None).collect(),
            nats_ports,
            folder,
            module,
            args: setup.args,
        };
        for n in 0..NODES {
            machines.start_nats(n).await;
        }
        for n in 0..NODES {
            if setup.can_be_cut {
                let targets = machines.nats_addresses();
                let (entrance, is_cut) =
                    (machines.network.entrance(n), machines.cuts[n].subscribe());
                let proxies = start_all(entrance, targets, is_cut).await;
                machines.proxies.push(proxies);
            }
        }
        for n in 0..setup.nodes {
            machines.spawn_node(n);
        }
        for n in 0..setup.nodes {
            machines.wait_for_node(n).await;
        }
        machines
    }

    /// A folder for what a test needs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The module that all nodes have.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Where clients connect to each node.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..NODES).map(|n| self.address(n)).collect()
    }

    fn address(&self, n: usize) -> SocketAddr {
        SocketAddr::new(self.network.address_for_clients(n), self.ports[n])
    }

    /// Where the servers of NATS are.
    pub fn nats_addresses(&self) -> Vec<SocketAddr> {
        let ports = self.nats_ports.iter().enumerate();
        ports
            .map(|(n, port)| SocketAddr::new(self.network.address(n), *port))
            .collect()
    }

    pub async fn start_nats(&mut self, n: usize) {
        self.spawn_nats(n);
        self.wait_for_nats(n).await;
    }

    fn spawn_nats(&mut self, n: usize) {
        let log = self.log_file(&format!("nats-{n}.log"));
        let child = self
            .network
            .command(n, &self.nats_program)
            .arg("-c")
            .arg(self.folder.join(format!("nats-{n}.conf")))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.nats[n] = Some(child.expect("the program runs"));
    }

    async fn wait_for_nats(&self, n: usize) {
        let address = self.network.address_for_clients(n);
        wait_for_port(SocketAddr::new(address, self.nats_ports[n])).await;
    }

    fn log_file(&self, name: &str) -> fs::File {
        let mut options = fs::File::options();
        let options = options.create(true).append(true);
        options.open(self.folder.join(name)).expect("a file")
    }

    pub fn kill_nats(&mut self, n: usize) {
        end(self.nats[n].take());
    }

    /// Starts all servers of NATS again.
    pub async fn start_all_nats(&mut self) {
        for n in 0..NODES {
            self.spawn_nats(n);
        }
        for n in 0..NODES {
            self.wait_for_nats(n).await;
        }
    }

    pub fn stop_nats(&self, n: usize) {
        signal(self.nats[n].as_ref().expect("it runs"), Signal::STOP);
    }

    pub fn continue_nats(&self, n: usize) {
        signal(self.nats[n].as_ref().expect("it runs"), Signal::CONT);
    }

    pub async fn start_node(&mut self, n: usize) {
        self.spawn_node(n);
        self.wait_for_node(n).await;
    }

    fn spawn_node(&mut self, n: usize) {
        let servers = match self.proxies.get(n) {
            Some(proxies) => proxies.iter().map(|proxy| proxy.address).collect(),
            None => self.nats_addresses(),
        };
        let servers: Vec<_> = servers.iter().map(|it| format!("nats://{it}")).collect();
        let log = self.log_file(&format!("node-{n}.log"));
        let peers = SocketAddr::new(self.network.address(n), self.peer_ports[n]);
        let child = self
            .network
            .command(n, Path::new(env!("CARGO_BIN_EXE_stateroom-wasmi")))
            .arg("serve")
            .arg(&self.module)
            .args(["--host", &self.network.any_address().to_string()])
            .args(["--port", &self.ports[n].to_string()])
            .args(["--cluster", &servers.join(",")])
            .args(["--node-name", &format!("node-{n}")])
            .args(["--peer-listen", &peers.to_string()])
            .args([
                "--workers",
                "1",
                "--message-rate",
                "0",
                "--connect-rate",
                "0",
            ])
            .args(["--max-connections-per-address", "100000"])
            // The monitoring of NATS is not what is tested here.
            .arg("--cluster-unsafe")
            .args(self.args)
            .env(
                "RUST_LOG",
                env::var("NODE_LOG").unwrap_or_else(|_| "info".into()),
            )
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.nodes[n] = Some(child.expect("the tool runs"));
    }

    async fn wait_for_node(&self, n: usize) {
        wait_for_port(self.address(n)).await;
    }

    pub fn kill_node(&mut self, n: usize) {
        end(self.nodes[n].take());
    }

    /// Ends a node by SIGTERM.
    pub async fn drain_node(&mut self, n: usize) {
        let mut node = self.nodes[n].take().expect("it runs");
        signal(&node, Signal::TERM);
        let ended = async {
            while node.try_wait().expect("it can be waited for").is_none() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, ended).await.expect("it ends");
        let status = node.wait().expect("it has ended");
        assert!(status.success(), "node {n} has ended with {status}");
    }

    pub fn stop_node(&self, n: usize) {
        signal(self.nodes[n].as_ref().expect("it runs"), Signal::STOP);
    }

    pub fn continue_node(&self, n: usize) {
        signal(self.nodes[n].as_ref().expect("it runs"), Signal::CONT);
    }

    pub fn cut_off(&self, n: usize, is_cut: bool) {
        self.cuts[n].send_replace(is_cut);
    }

    /// What the processes that run have taken.
    pub fn processor_time(&self) -> ProcessorTime {
        let all = |processes: &[Option<Child>]| processes.iter().flatten().map(time_of).sum();
        ProcessorTime {
            nodes: all(&self.nodes),
            nats: all(&self.nats),
        }
    }

    /// What a node has logged in all of its runs.
    pub fn node_log(&self, n: usize) -> String {
        let log = fs::read(self.folder.join(format!("node-{n}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What the nodes have logged, the last of it.
    fn logs(&self) -> String {
        let mut text = String::new();
        for n in 0..NODES {
            for name in [format!("node-{n}.log"), format!("nats-{n}.log")] {
                let Ok(file) = fs::File::open(self.folder.join(&name)) else {
                    continue;
                };
                let lines: Vec<_> = BufReader::new(file).lines().map_while(Result::ok).collect();
                let last = lines.iter().skip(lines.len().saturating_sub(60));
                text.push_str(&format!("== {name}\n"));
                for line in last {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let processes = self.nodes.iter_mut().chain(&mut self.nats);
        for process in processes {
            end(process.take());
        }
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        if env::var_os("KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn end(process: Option<Child>) {
    if let Some(mut process) = process {
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// The time of all threads of a process.
fn time_of(process: &Child) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let times = threads.filter_map(|thread| {
        let times = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

fn signal(process: &Child, signal: Signal) {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it has an id"), signal).expect("it runs");
}

async fn wait_for_port(address: SocketAddr) {
    let listens = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, listens).await.expect("it listens");
}

/// Ports below those that the system gives to connections, which would take one that is free for a moment.
fn free_ports(count: usize) -> Vec<u16> {
    const PORTS: u32 = 20_000;
    let first = std::process::id().wrapping_mul(97) % PORTS;
    let ports = (0..PORTS).map(|n| 10_000 + ((first + n) % PORTS) as u16);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.filter(is_free).take(count).collect()
}

fn nats_config(folder: &Path, n: usize, port: u16, routes: &[u16], network: &Network) -> String {
    let address = |n| SocketAddr::new(network.address(n), routes[n]);
    let urls: Vec<_> = (0..NODES)
        .map(|n| format!("nats://{}", address(n)))
        .collect();
    format!(
        "server_name: nats-{n}\nlisten: \"{}\"\nmax_payload: 2MB\n\
         jetstream {{ store_dir: {:?}, sync_interval: always }}\n\
         # Nodes know no way around the proxies.\n\
         cluster {{ name: test, listen: \"{}\", routes: [{}], no_advertise: true }}\n",
        SocketAddr::new(network.any_address(), port),
        folder.join(format!("nats-{n}")),
        address(n),
        urls.join(", "),
    )
}
