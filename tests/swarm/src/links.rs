//! Links that share their rate fairly among the pieces that cross them.

use p2p::PieceIndex;

/// Number of a flow.
pub(crate) type FlowId = usize;

/// One piece on its way.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    /// Sender; `None` for the origin.
    pub(crate) from: Option<usize>,
    pub(crate) to: usize,
    pub(crate) piece: PieceIndex,
    left: f64,
    rate: f64,
    settled: f64,
    /// Changes with the rate: an end that was foreseen before does not hold. Never used again, as numbers of flows are.
    pub(crate) version: u64,
}

/// Rates in bytes per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

/// All links and what crosses them.
#[derive(Debug)]
pub(crate) struct Links {
    rates: Vec<Rates>,
    origin_rate: f64,
    up: Vec<Vec<FlowId>>,
    down: Vec<Vec<FlowId>>,
    origin: Vec<FlowId>,
    flows: Vec<Option<Flow>>,
    free: Vec<FlowId>,
    versions: u64,
    /// Bytes that left the origin.
    pub(crate) origin_sent: f64,
}

/// When a flow will end if nothing changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreseen {
    pub(crate) flow: FlowId,
    pub(crate) version: u64,
    pub(crate) at: f64,
}

impl Links {
    pub(crate) fn new(rates: Vec<Rates>, origin_rate: f64) -> Self {
        let (up, down) = (vec![Vec::new(); rates.len()], vec![Vec::new(); rates.len()]);
        Self {
            rates,
            origin_rate,
            up,
            down,
            origin: Vec::new(),
            flows: Vec::new(),
            free: Vec::new(),
            versions: 0,
            origin_sent: 0.0,
        }
    }

    /// Begins to send; says which ends are foreseen anew.
    pub(crate) fn begin(
        &mut self,
        now: f64,
        (from, to): (Option<usize>, usize),
        piece: PieceIndex,
        len: f64,
    ) -> Vec<Foreseen> {
        let flow = Flow { from, to, piece, left: len, rate: 0.0, settled: now, version: 0 };
        let id = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        self.flows[id] = Some(flow);
        self.sending(from).push(id);
        self.down[to].push(id);
        if from.is_none() {
            self.origin_sent += len;
        }
        self.share(now, from, to)
    }

    /// The flow, if its end was foreseen rightly.
    pub(crate) fn get(&self, foreseen: Foreseen) -> Option<&Flow> {
        self.flows[foreseen.flow].as_ref().filter(|flow| flow.version == foreseen.version)
    }

    /// Ends a flow, whole or not; says which ends are foreseen anew.
    pub(crate) fn end(&mut self, now: f64, id: FlowId) -> (Option<Flow>, Vec<Foreseen>) {
        let Some(flow) = self.flows[id].take() else { return (None, Vec::new()) };
        self.sending(flow.from).retain(|other| *other != id);
        self.down[flow.to].retain(|other| *other != id);
        self.free.push(id);
        let foreseen = self.share(now, flow.from, flow.to);
        (Some(flow), foreseen)
    }

    /// All flows from or to a node.
    pub(crate) fn of(&self, node: usize) -> Vec<FlowId> {
        self.up[node].iter().chain(&self.down[node]).copied().collect()
    }

    fn sending(&mut self, from: Option<usize>) -> &mut Vec<FlowId> {
        match from {
            Some(node) => &mut self.up[node],
            None => &mut self.origin,
        }
    }

    /// Shares the two links of a flow that began or ended anew: alike first, then what is left to who can use it.
    fn share(&mut self, now: f64, from: Option<usize>, to: usize) -> Vec<Foreseen> {
        let mut touched = self.down[to].clone();
        let sending = self.sending(from).clone();
        touched.extend(sending.into_iter().filter(|id| !self.down[to].contains(id)));
        for id in &touched {
            self.settle(now, *id);
        }
        for id in &touched {
            let flow = self.flow(*id);
            // A link that nothing changed at gives what its other flows leave.
            let up = self.up_link(flow.from).limit(flow.from == from);
            let down = self.down_link(flow.to).limit(flow.to == to);
            self.set_rate(*id, up.min(down));
        }
        for id in &touched {
            let flow = self.flow(*id);
            let left = self.up_link(flow.from).left().min(self.down_link(flow.to).left()).max(0.0);
            self.set_rate(*id, flow.rate + left);
        }
        touched.into_iter().map(|id| self.foresee(now, id)).collect()
    }

    fn flow(&self, id: FlowId) -> &Flow {
        self.flows[id].as_ref().expect("listed flows are there")
    }

    fn up_link(&self, from: Option<usize>) -> Link {
        match from {
            Some(node) => self.link(self.rates[node].up, &self.up[node]),
            None => self.link(self.origin_rate, &self.origin),
        }
    }

    fn down_link(&self, to: usize) -> Link {
        self.link(self.rates[to].down, &self.down[to])
    }

    #[allow(clippy::cast_precision_loss, reason = "a few flows")]
    fn link(&self, capacity: f64, flows: &[FlowId]) -> Link {
        Link { capacity, used: flows.iter().map(|id| self.flow(*id).rate).sum(), flows: flows.len() as f64 }
    }

    /// Accounts for what was sent at the rate so far, which ends.
    fn settle(&mut self, now: f64, id: FlowId) {
        let flow = self.flows[id].as_mut().expect("listed flows are there");
        flow.left -= flow.rate * (now - flow.settled);
        flow.settled = now;
        flow.rate = 0.0;
    }

    fn set_rate(&mut self, id: FlowId, rate: f64) {
        self.flows[id].as_mut().expect("listed flows are there").rate = rate;
    }

    fn foresee(&mut self, now: f64, id: FlowId) -> Foreseen {
        self.versions += 1;
        let flow = self.flows[id].as_mut().expect("listed flows are there");
        flow.version = self.versions;
        Foreseen { flow: id, version: flow.version, at: now + (flow.left / flow.rate).max(0.0) }
    }
}

/// One link: its rate, what is used of it, and how many flows cross it.
struct Link {
    capacity: f64,
    used: f64,
    flows: f64,
}

impl Link {
    /// What one flow may use: its fair share where all are shared out anew, else what the others leave, and a little in
    /// any case, or it would never end.
    fn limit(&self, anew: bool) -> f64 {
        let fair = self.capacity / self.flows;
        if anew { fair } else { self.left().clamp(fair / 4.0, self.capacity) }
    }

    fn left(&self) -> f64 {
        self.capacity - self.used
    }
}
