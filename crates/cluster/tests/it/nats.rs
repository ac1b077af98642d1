//! Servers of NATS for tests.

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// The program, or none if these tests are skipped: `NATS_SERVER` or `nats-server` on the path.
pub(crate) fn program() -> Option<PathBuf> {
    let named = env::var_os("NATS_SERVER").filter(|name| !name.is_empty());
    let program = named.map_or_else(|| "nats-server".into(), PathBuf::from);
    let version = Command::new(&program).arg("--version").output();
    match version {
        Ok(output) if output.status.success() => Some(program),
        _ if env::var_os("NATS_SERVER").is_some() => {
            panic!("NATS_SERVER is {program:?}, which cannot be run")
        }
        _ => {
            eprintln!("SKIPPED: there is no nats-server (set NATS_SERVER or the path)");
            None
        }
    }
}

/// A running server, which is killed in the end.
pub(crate) struct NatsServer {
    child: Child,
    pub(crate) url: String,
    folder: TempDir,
    program: PathBuf,
    port: u16,
}

impl NatsServer {
    /// One by itself, with a folder of its own; none if there is no program.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with more in its configuration.
    pub(crate) fn start_with(more: &str) -> Option<Self> {
        Self::start_in(more, "")
    }

    /// The same, with more about JetStream.
    pub(crate) fn start_limited(jetstream: &str) -> Option<Self> {
        Self::start_in("", jetstream)
    }

    fn start_in(more: &str, jetstream: &str) -> Option<Self> {
        let program = program()?;
        let folder = TempDir::new();
        let port = free_port();
        for (file, text) in [("more.conf", more), ("jetstream.conf", jetstream)] {
            fs::write(folder.path().join(file), text).expect("the folder can be written");
        }
        let child = spawn(&program, folder.path(), port);
        let url = format!("nats://127.0.0.1:{port}");
        let server = Self {
            child,
            url,
            folder,
            program,
            port,
        };
        server.wait();
        Some(server)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Kills it, and starts it with something else in its configuration.
    pub(crate) fn restart_with(&mut self, more: &str) {
        self.kill();
        let file = self.folder.path().join("more.conf");
        fs::write(file, more).expect("the folder can be written");
        self.restart();
    }

    /// Starts it again, with the same folder and port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.program, self.folder.path(), self.port);
        self.wait();
    }

    /// Changes the configuration of a stream.
    pub(crate) fn configure_stream(&self, name: &str, change: impl FnOnce(&mut stream::Config)) {
        self.with_jetstream(async |context| {
            let stream = context.get_stream(name).await.expect("it is there");
            let mut config = stream.cached_info().config.clone();
            change(&mut config);
            context.update_stream(config).await.expect("it is changed");
        });
    }

    /// Stores a message; returns its sequence number.
    pub(crate) fn publish(
        &self,
        subject: String,
        headers: &[(&'static str, &'static str)],
        payload: &[u8],
    ) -> u64 {
        self.with_jetstream(async |context| {
            let mut map = async_nats::HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, *value);
            }
            let published = context.publish_with_headers(subject, map, payload.to_vec().into());
            let published = published.await;
            let ack = published.expect("it is published").await;
            ack.expect("it is stored").sequence
        })
    }

    /// How many there are of such subjects.
    pub(crate) fn count(&self, stream: &str, filter: &str) -> usize {
        self.with_jetstream(async |context| {
            let stream = context.get_stream(stream).await.expect("it is there");
            let info = stream.info_with_subjects(filter).await;
            let subjects = info.expect("NATS answers").collect::<Vec<_>>().await;
            let counts = subjects.into_iter().map(|it| it.expect("NATS answers").1);
            counts.sum()
        })
    }

    /// Deletes one.
    pub(crate) fn delete(&self, stream: &str, sequence: u64) {
        self.with_jetstream(async |context| {
            let stream = context.get_stream(stream).await.expect("it is there");
            let deleted = stream.delete_message(sequence).await;
            assert!(deleted.expect("it is deleted"));
        });
    }

    fn with_jetstream<T>(&self, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let runtime = Runtime::new().expect("it starts");
        runtime.block_on(async {
            let client = async_nats::connect(&self.url).await.expect("it connects");
            work(jetstream::new(client)).await
        })
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server does not listen");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, folder: &Path, port: u16) -> Child {
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 2MB\n\
         jetstream {{\nstore_dir: {:?}\nsync_interval: always\ninclude jetstream.conf\n}}\n\
         include more.conf\n",
        folder.join("data")
    );
    let file = folder.join("nats.conf");
    fs::write(&file, config).expect("the folder can be written");
    Command::new(program)
        .arg("-c")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// A folder that is removed in the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stateroom-cluster-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the folder can be made");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
