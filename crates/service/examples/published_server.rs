//! The published server, with its rooms on the interpreter: but for one line, the program that one
//! would write with `stateroom-wasm-host`.
//!
//! ```sh
//! cargo run -p stateroom-wasmi-service --example published_server -- \
//!     examples/rooms/wasm/chat-rust-0.4.wasm
//! ```
//!
//! Clients connect to `ws://127.0.0.1:8080/ws`.

// use stateroom_wasm_host::WasmHostFactory;
use stateroom_wasmi_service::WasmHostFactory;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let module = std::env::args()
        .nth(1)
        .ok_or("which module? usage: published_server MODULE")?;
    let factory = WasmHostFactory::new(module)?;
    let server = stateroom_server::Server::new().with_ip("127.0.0.1".into());
    println!("serving at ws://{}:{}/ws", server.ip, server.port);
    server.serve(factory)?;
    Ok(())
}
