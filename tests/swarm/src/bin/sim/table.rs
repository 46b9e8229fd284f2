//! Rules of others, as a model, and our policy, simulated, in slots: the time of one piece on one link.

use serde_json::{Value, json};
use swarm::{Rule, Scene, SlotOutcome, Slots, bound, play, run};

/// A swarm: nodes, pieces, and pieces that the origin sends in a slot.
type Size = (usize, u32, u32);

/// What the table is about; the last ones take long.
pub(super) const SIZES: [Size; 5] =
    [(1200, 50, 20), (1200, 200, 20), (1200, 200, 1), (10_000, 200, 20), (10_000, 800, 20)];

const RULES: [(&str, Rule); 8] = [
    ("model: tree, 2 children (DadiP2P's rule)", Rule::Tree),
    ("model: fixed acyclic, 3 of 15 (Dragonfly v2's)", Rule::Dag),
    ("model: fixed random graph, ~10 (Kraken's)", Rule::Graph),
    ("model: 4 partners, redrawn every 8 slots", Rule::Redrawn { partners: 4, once: false }),
    ("model: 16 partners, redrawn", Rule::Redrawn { partners: 16, once: false }),
    ("model: 32 partners, redrawn", Rule::Redrawn { partners: 32, once: false }),
    ("model: 16, redrawn, origin gives each once", Rule::Redrawn { partners: 16, once: true }),
    ("model: 32, redrawn, origin gives each once", Rule::Redrawn { partners: 32, once: true }),
];
const OURS: &str = "Shoal: the daemon's code, simulated";

#[allow(clippy::print_stdout, reason = "the table is what the command is for")]
pub(super) fn print(sizes: &[Size], seed: u64, json: bool) {
    for size in sizes {
        let (nodes, pieces, origin) = *size;
        let least = bound(nodes, pieces as usize, origin as usize);
        if !json {
            println!("\n{nodes} nodes, {pieces} pieces, origin of {origin} links; at least {least} slots");
            println!("{:<48} {:>8} {:>8} {:>10} {:>13}", "", "p50", "max", "efficiency", "origin copies");
        }
        let model = |(name, rule)| {
            let slots = Slots { nodes, pieces: pieces as usize, origin: origin as usize, rule, seed };
            row(*size, name, play(&slots))
        };
        let rows = RULES.into_iter().map(model).chain(std::iter::once_with(|| ours(*size, seed)));
        for row in rows {
            println!("{}", if json { row.to_string() } else { line(&row) });
        }
    }
}

fn row((nodes, pieces, origin): Size, name: &str, outcome: Option<SlotOutcome>) -> Value {
    let slots = |slots: Option<usize>| slots.map(|slots| f64::from(u32::try_from(slots).unwrap_or(u32::MAX)));
    json!({
        "nodes": nodes, "pieces": pieces, "origin": origin, "policy": name,
        "p50_slots": slots(outcome.map(|outcome| outcome.median)),
        "max_slots": slots(outcome.map(|outcome| outcome.last)),
        "origin_copies": outcome.map(|outcome| outcome.origin_copies),
        "bound_slots": bound(nodes, pieces as usize, origin as usize),
    })
}

/// Our own: in seconds, by the time of a piece at the rate of a link.
fn ours(size: Size, seed: u64) -> Value {
    let (nodes, pieces, origin) = size;
    let scene = Scene { nodes, pieces, seed, ..Scene::default() };
    let scene = Scene { origin_rate: scene.rate * f64::from(origin), ..scene };
    let outcome = run(&scene);
    let slot = f64::from(scene.piece_size) / scene.rate;
    let mut row = row(size, OURS, None);
    row["p50_slots"] = json!(outcome.quantile(0.5) / slot);
    row["max_slots"] = json!(outcome.last() / slot);
    row["origin_copies"] = json!(outcome.origin_copies());
    row
}

fn line(row: &Value) -> String {
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::INFINITY);
    format!(
        "{:<48} {:>8.0} {:>8.0} {:>10.2} {:>13.2}",
        row["policy"].as_str().unwrap_or_default(),
        number("p50_slots"),
        number("max_slots"),
        number("bound_slots") / number("max_slots"),
        number("origin_copies"),
    )
}
