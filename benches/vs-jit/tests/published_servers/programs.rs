//! Programs that serve a room: for each server, one with the JIT host, and one with this project's.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    thread,
};

/// A server and a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub server: Version,
    pub host: Host,
}

/// Of the published crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V0_2,
    V0_4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Jit,
    Wasmi,
}

impl Program {
    /// Serves a module until the process ends, and returns the port.
    pub fn serve(self, module: &Path) -> u16 {
        match self {
            Self {
                server: Version::V0_4,
                host: Host::Jit,
            } => {
                use stateroom_wasm_host_0_4::WasmHostFactory;
                serve_0_4(WasmHostFactory::new(module).expect("the module loads"))
            }
            Self {
                server: Version::V0_4,
                host: Host::Wasmi,
            } => {
                use stateroom_wasmi_service::WasmHostFactory;
                serve_0_4(WasmHostFactory::new(module).expect("the module loads"))
            }
            Self {
                server: Version::V0_2,
                host: Host::Jit,
            } => {
                use stateroom_wasm_host_0_2::WasmHostFactory;
                serve_0_2(WasmHostFactory::new(module).expect("the module loads"))
            }
            Self {
                server: Version::V0_2,
                host: Host::Wasmi,
            } => {
                use stateroom_wasmi_service::v0_2::WasmHostFactory;
                serve_0_2(WasmHostFactory::new(module).expect("the module loads"))
            }
        }
    }
}

fn serve_0_4(factory: impl stateroom_0_4::StateroomServiceFactory) -> u16 {
    let port = free_port();
    let server = stateroom_server::Server::new()
        .with_ip(Ipv4Addr::LOCALHOST.to_string())
        .with_port(port);
    thread::spawn(move || server.serve(factory).expect("the server runs"));
    port
}

fn serve_0_2<S>(
    factory: impl stateroom_0_2::StateroomServiceFactory<
        stateroom_server_0_2::ServiceActorContext,
        Service = S,
    > + Send
    + 'static,
) -> u16
where
    S: stateroom_0_2::StateroomService + Send + Sync + Unpin + 'static,
{
    let port = free_port();
    let server = stateroom_server_0_2::Server::new()
        .with_ip(Ipv4Addr::LOCALHOST.to_string())
        .with_port(port.into());
    thread::spawn(move || server.serve(factory).expect("the server runs"));
    port
}

/// The published servers cannot choose one.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A bundled room.
pub fn bundled(name: &str) -> PathBuf {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rooms/wasm");
    rooms.join(format!("{name}.wasm"))
}
