//! The network of the machines. If it can be had, each machine, a node and a server of NATS, has a namespace of
//! its own, and two links: one to the other machines, and one to clients. A cut in the first drops packets, and
//! nobody is told.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, id},
};

/// Of all machines.
pub struct Network {
    /// None if all machines have this one's.
    namespaces: Option<Namespaces>,
}

struct Namespaces {
    /// How names of links and namespaces begin.
    prefix: String,
    subnet: u8,
    machines: usize,
}

/// Between machines, and between them and clients.
const LINKS: [char; 2] = ['a', 'b'];

impl Network {
    /// Makes namespaces if that is possible.
    pub fn new(machines: usize) -> Self {
        let namespaces = Namespaces {
            prefix: format!("sr{}", id()),
            subnet: (id() % 251) as u8,
            machines,
        };
        match namespaces.make() {
            Ok(()) => Self {
                namespaces: Some(namespaces),
            },
            Err(error) => {
                eprintln!("SKIPPED: partitions, as there are no network namespaces: {error}");
                Self { namespaces: None }
            }
        }
    }

    /// All machines have this one's.
    pub fn of_this_machine() -> Self {
        Self { namespaces: None }
    }

    /// Whether machines can be cut off.
    pub fn has_links(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Where other machines reach one.
    pub fn address(&self, machine: usize) -> IpAddr {
        self.address_of(18, machine)
    }

    /// Where clients do.
    pub fn address_for_clients(&self, machine: usize) -> IpAddr {
        self.address_of(19, machine)
    }

    fn address_of(&self, network: u8, machine: usize) -> IpAddr {
        match &self.namespaces {
            // Those that are set aside for measurements of networks.
            Some(it) => Ipv4Addr::new(198, network, it.subnet, 10 + machine as u8).into(),
            None => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// What is to be listened on for clients and other machines.
    pub fn any_address(&self) -> IpAddr {
        match self.namespaces {
            Some(_) => Ipv4Addr::UNSPECIFIED.into(),
            None => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Runs a program at a machine.
    pub fn command(&self, machine: usize, program: &Path) -> Command {
        match &self.namespaces {
            // The process becomes the program.
            Some(namespaces) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespaces.name(machine)]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// What moves a thread to a machine.
    pub fn entrance(&self, machine: usize) -> Entrance {
        let namespaces = self.namespaces.as_ref();
        Entrance(namespaces.map(|it| Path::new("/run/netns").join(it.name(machine))))
    }

    /// Cuts a machine off from the others, or not any more.
    pub fn cut(&self, machine: usize, is_cut: bool) {
        let Some(namespaces) = &self.namespaces else {
            return;
        };
        let link = namespaces.link('a', machine);
        let bridge = format!("{}a", namespaces.prefix);
        let changed = match is_cut {
            true => ip(&["link", "set", &link, "nomaster"]),
            false => ip(&["link", "set", &link, "master", &bridge]),
        };
        changed.expect("the link can be changed");
    }
}

/// Moves threads to a machine.
pub struct Entrance(Option<PathBuf>);

impl Entrance {
    /// Moves this thread: the sockets that it opens are the machine's from now on.
    pub fn enter(&self) {
        if let Some(path) = &self.0 {
            let file = File::open(path).expect("the namespace is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it can be entered");
        }
    }
}

impl Namespaces {
    fn name(&self, machine: usize) -> String {
        format!("{}n{machine}", self.prefix)
    }

    fn link(&self, kind: char, machine: usize) -> String {
        format!("{}{kind}{machine}", self.prefix)
    }

    fn make(&self) -> Result<(), String> {
        for (kind, network) in LINKS.into_iter().zip(18..) {
            let bridge = format!("{}{kind}", self.prefix);
            ip(&["link", "add", &bridge, "type", "bridge"])?;
            ip(&["link", "set", &bridge, "up"])?;
            if kind == 'b' {
                let own = format!("198.{network}.{}.1/24", self.subnet);
                ip(&["addr", "add", &own, "dev", &bridge])?;
            }
        }
        for machine in 0..self.machines {
            let name = self.name(machine);
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            for (kind, network) in LINKS.into_iter().zip(18..) {
                let (bridge, link) = (format!("{}{kind}", self.prefix), self.link(kind, machine));
                let end = format!("eth{kind}");
                ip(&[
                    "link", "add", &link, "type", "veth", "peer", "name", &end, "netns", &name,
                ])?;
                ip(&["link", "set", &link, "master", &bridge, "up"])?;
                let address = format!("198.{network}.{}.{}/24", self.subnet, 10 + machine);
                ip(&["-n", &name, "addr", "add", &address, "dev", &end])?;
                ip(&["-n", &name, "link", "set", &end, "up"])?;
            }
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What was not made cannot be removed.
        for machine in 0..self.machines {
            for kind in LINKS {
                let _ = ip(&["link", "del", &self.link(kind, machine)]);
            }
            let _ = ip(&["netns", "del", &self.name(machine)]);
        }
        for kind in LINKS {
            let _ = ip(&["link", "del", &format!("{}{kind}", self.prefix)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
