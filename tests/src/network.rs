//! A network of our own: hosts in network namespaces, joined by a router. All of it goes with the threads and programs
//! that are in it.
//!
//! Not by a bridge: every host would know every other's link address, and all namespaces share one table of those.

use std::{
    fs,
    net::Ipv4Addr,
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Pid, gettid},
};

use crate::command::{command, run};

/// The same on every machine, whatever its default is.
const CONGESTION: [&str; 2] = ["congctl", "cubic"];
/// Of a shaped link: what may go at once, and how long a packet may wait.
const BURST: &str = "64kb";
const LATENCY: &str = "50ms";

/// The place that all hosts are joined to; itself the host [`Network::HUB`].
#[derive(Debug, Clone, Copy)]
pub struct Network {
    hub: Pid,
}

impl Network {
    /// Address of the hub.
    pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// Makes the calling thread, and all that it starts from then on, the hub.
    ///
    /// # Errors
    /// Where we are not root, or iproute2 is missing.
    pub fn new() -> Result<Self> {
        enter()?;
        ip(&["addr", "add", &format!("{}/32", Self::HUB), "dev", "lo"])?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let the hub pass packets on")?;
        Ok(Self { hub: gettid() })
    }

    /// The address of a host; `number` is not 1, the hub's.
    #[must_use]
    pub fn address(number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }

    /// Makes the calling thread, and all that it starts from then on, a host, whose link takes so many bits per second
    /// each way; 0 sets no limit.
    fn join(self, number: u16, bits_per_second: u64) -> Result<()> {
        enter()?;
        let (link, me) = (format!("host{number}"), gettid().to_string());
        self.at_hub(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &me])?;
        let (address, hub) = (format!("{}/32", Self::address(number)), Self::HUB.to_string());
        ip(&["addr", "add", &address, "dev", "eth0"])?;
        ip(&["link", "set", "eth0", "up"])?;
        ip(&[&["route", "add", &hub, "dev", "eth0"], &CONGESTION[..]].concat())?;
        ip(&[&["route", "add", "default", "via", &hub], &CONGESTION[..]].concat())?;
        self.at_hub(&["ip", "link", "set", &link, "up"])?;
        self.at_hub(&[&["ip", "route", "add", &address, "dev", &link], &CONGESTION[..]].concat())?;
        if bits_per_second > 0 {
            let rate = format!("{bits_per_second}bit");
            run(command("tc", ["qdisc", "add", "dev", "eth0"]).args(shape(&rate)))?;
            self.at_hub(&[&["tc", "qdisc", "add", "dev", &link], &shape(&rate)[..]].concat())?;
        }
        Ok(())
    }

    fn at_hub(self, args: &[&str]) -> Result<()> {
        let namespace = format!("--net=/proc/{}/ns/net", self.hub);
        run(command("nsenter", [namespace.as_str()]).args(args))?;
        Ok(())
    }
}

/// Changes how many bits per second the calling thread's host sends, whose link is shaped.
///
/// # Errors
/// Where it is none.
pub fn limit_upload(bits_per_second: u64) -> Result<()> {
    let rate = format!("{bits_per_second}bit");
    run(command("tc", ["qdisc", "replace", "dev", "eth0"]).args(shape(&rate)))?;
    Ok(())
}

fn shape(rate: &str) -> [&str; 8] {
    ["root", "tbf", "rate", rate, "burst", BURST, "latency", LATENCY]
}

fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("enter a network namespace of our own (this needs root)")?;
    ip(&["link", "set", "lo", "up"])
}

fn ip(args: &[&str]) -> Result<()> {
    run(&mut command("ip", args))?;
    Ok(())
}

type Call<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A host: a thread that lives in the network, with a state that never leaves it.
#[derive(Debug)]
pub struct Host<S: 'static> {
    calls: Option<SyncSender<Call<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S> Host<S> {
    /// Joins a host, and begins to make its state there; the first answer says whether that worked.
    ///
    /// # Errors
    /// Where no thread can be made.
    pub fn start(
        network: Network,
        number: u16,
        bits_per_second: u64,
        make: impl FnOnce() -> Result<S> + Send + 'static,
    ) -> Result<(Self, Answer<()>)> {
        let (calls, asked) = mpsc::sync_channel::<Call<S>>(1);
        let (made, is_made) = mpsc::sync_channel(1);
        let serve = move || {
            let state = network.join(number, bits_per_second).and_then(|()| make());
            let (state, outcome) = match state {
                Ok(state) => (Some(state), Ok(())),
                Err(error) => (None, Err(error)),
            };
            made.send(outcome).ok();
            let Some(mut state) = state else { return };
            asked.iter().for_each(|call| call(&mut state));
        };
        let thread = thread::Builder::new().name(format!("host{number}")).spawn(serve)?;
        Ok((Self { calls: Some(calls), thread: Some(thread) }, Answer(is_made)))
    }

    /// Begins to do something there.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (send, answer) = mpsc::sync_channel(1);
        let call = Box::new(move |state: &mut S| drop(send.send(work(state))));
        // A host that is gone drops the call, which its answer tells.
        if let Some(calls) = &self.calls {
            calls.send(call).ok();
        }
        Answer(answer)
    }

    /// Does something there.
    ///
    /// # Errors
    /// What it fails with.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.begin(work).wait()
    }
}

impl<S> Drop for Host<S> {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What a host will say.
#[derive(Debug)]
pub struct Answer<T>(Receiver<Result<T>>);

impl<T> Answer<T> {
    /// Longer than anything that a host is asked to do here.
    const PATIENCE: Duration = Duration::from_secs(300);

    /// Waits for it.
    ///
    /// # Errors
    /// What the work fails with, or that it does not end.
    pub fn wait(self) -> Result<T> {
        self.0.recv_timeout(Self::PATIENCE).context("a host does not answer")?
    }
}
