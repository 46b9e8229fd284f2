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
    /// When its end is looked for next.
    looked_for: f64,
    /// Tells it from others that have its number before or after it.
    serial: u64,
}

impl Flow {
    /// When it ends if nothing changes.
    fn ends(&self) -> f64 {
        self.settled + (self.left / self.rate).max(0.0)
    }
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
    up: Vec<Link>,
    down: Vec<Link>,
    origin: Link,
    flows: Vec<Option<Flow>>,
    free: Vec<FlowId>,
    serials: u64,
    /// Bytes that left the origin.
    pub(crate) origin_sent: f64,
}

/// When to look whether a flow has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreseen {
    flow: FlowId,
    serial: u64,
    pub(crate) at: f64,
}

/// What is seen of a flow at a time that was foreseen.
pub(crate) enum Seen {
    /// It has ended.
    Ended(FlowId),
    /// It became slower.
    EndsLater(Foreseen),
    /// It ended before, or its end was foreseen anew since.
    Nothing,
}

impl Links {
    pub(crate) fn new(rates: &[Rates], origin_rate: f64) -> Self {
        Self {
            up: rates.iter().map(|rates| Link::new(rates.up)).collect(),
            down: rates.iter().map(|rates| Link::new(rates.down)).collect(),
            origin: Link::new(origin_rate),
            flows: Vec::new(),
            free: Vec::new(),
            serials: 0,
            origin_sent: 0.0,
        }
    }

    /// Begins to send; says which ends are to be looked for.
    pub(crate) fn begin(
        &mut self,
        now: f64,
        (from, to): (Option<usize>, usize),
        piece: PieceIndex,
        len: f64,
    ) -> Vec<Foreseen> {
        self.serials += 1;
        let serial = self.serials;
        let flow =
            Flow { from, to, piece, left: len, rate: 0.0, settled: now, looked_for: f64::INFINITY, serial };
        let id = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        self.flows[id] = Some(flow);
        self.up_mut(from).flows.push(id);
        self.down[to].flows.push(id);
        if from.is_none() {
            self.origin_sent += len;
        }
        self.share(now, from, to)
    }

    /// Looks at a flow when its end was foreseen.
    pub(crate) fn look(&mut self, now: f64, foreseen: Foreseen) -> Seen {
        let Foreseen { flow: id, serial, at } = foreseen;
        let flow = self.flows[id].as_mut().filter(|flow| flow.serial == serial);
        // Two looks at one flow may be foreseen: the earlier one counts.
        let Some(flow) = flow.filter(|flow| flow.looked_for.total_cmp(&at).is_eq()) else {
            return Seen::Nothing;
        };
        if flow.ends() > now {
            flow.looked_for = flow.ends();
            return Seen::EndsLater(Foreseen { at: flow.looked_for, ..foreseen });
        }
        Seen::Ended(id)
    }

    /// Ends a flow, whole or not; says which ends are to be looked for.
    pub(crate) fn end(&mut self, now: f64, id: FlowId) -> (Option<Flow>, Vec<Foreseen>) {
        let Some(flow) = self.flows[id].take() else { return (None, Vec::new()) };
        self.up_mut(flow.from).lose(id, flow.rate);
        self.down[flow.to].lose(id, flow.rate);
        self.free.push(id);
        let foreseen = self.share(now, flow.from, flow.to);
        (Some(flow), foreseen)
    }

    /// All flows from or to a node.
    pub(crate) fn of(&self, node: usize) -> Vec<FlowId> {
        self.up[node].flows.iter().chain(&self.down[node].flows).copied().collect()
    }

    /// Shares the two links of a flow that began or ended anew: alike first, then what is left to who can use it.
    fn share(&mut self, now: f64, from: Option<usize>, to: usize) -> Vec<Foreseen> {
        let down = &self.down[to].flows;
        let others = self.up_of(from).flows.iter().filter(|id| !down.contains(id));
        let touched: Vec<_> = down.iter().chain(others).copied().collect();
        for id in &touched {
            self.settle(now, *id);
        }
        for id in &touched {
            let flow = self.flow(*id);
            // A link that nothing changed at gives what its other flows leave.
            let up = self.up_of(flow.from).limit(flow.from == from);
            let down = self.down[flow.to].limit(flow.to == to);
            self.add_rate(*id, up.min(down));
        }
        for id in &touched {
            let flow = self.flow(*id);
            let left = self.up_of(flow.from).left().min(self.down[flow.to].left()).max(0.0);
            self.add_rate(*id, left);
        }
        touched.into_iter().filter_map(|id| self.foresee(id)).collect()
    }

    fn flow(&self, id: FlowId) -> &Flow {
        self.flows[id].as_ref().expect("listed flows are there")
    }

    fn up_of(&self, from: Option<usize>) -> &Link {
        from.map_or(&self.origin, |node| &self.up[node])
    }

    fn up_mut(&mut self, from: Option<usize>) -> &mut Link {
        match from {
            Some(node) => &mut self.up[node],
            None => &mut self.origin,
        }
    }

    /// Accounts for what was sent at the rate so far, which ends.
    fn settle(&mut self, now: f64, id: FlowId) {
        let flow = self.flows[id].as_mut().expect("listed flows are there");
        flow.left -= flow.rate * (now - flow.settled);
        flow.settled = now;
        let rate = flow.rate;
        self.add_rate(id, -rate);
    }

    fn add_rate(&mut self, id: FlowId, more: f64) {
        let flow = self.flows[id].as_mut().expect("listed flows are there");
        flow.rate += more;
        let (from, to) = (flow.from, flow.to);
        self.up_mut(from).used += more;
        self.down[to].used += more;
    }

    /// An end that comes earlier than it is looked for is foreseen anew; one that comes later is found to be then.
    fn foresee(&mut self, id: FlowId) -> Option<Foreseen> {
        let flow = self.flows[id].as_mut().expect("listed flows are there");
        let at = flow.ends();
        (at < flow.looked_for).then(|| {
            flow.looked_for = at;
            Foreseen { flow: id, serial: flow.serial, at }
        })
    }
}

/// One link: its rate, what is used of it, and what crosses it.
#[derive(Debug)]
struct Link {
    capacity: f64,
    used: f64,
    flows: Vec<FlowId>,
}

impl Link {
    const fn new(capacity: f64) -> Self {
        Self { capacity, used: 0.0, flows: Vec::new() }
    }

    fn lose(&mut self, id: FlowId, rate: f64) {
        self.flows.retain(|other| *other != id);
        // What rounding leaves must not add up.
        self.used = if self.flows.is_empty() { 0.0 } else { self.used - rate };
    }

    /// What one flow may use: its fair share where all are shared out anew, else what the others leave, and a little in
    /// any case, or it would never end.
    #[allow(clippy::cast_precision_loss, reason = "a few flows")]
    fn limit(&self, anew: bool) -> f64 {
        let fair = self.capacity / self.flows.len() as f64;
        if anew { fair } else { self.left().clamp(fair / 4.0, self.capacity) }
    }

    fn left(&self) -> f64 {
        self.capacity - self.used
    }
}
