//! A cluster under churn and kills for as long as told: nothing grows, and every promise is kept. `tests/soak`
//! runs it.
//!
//! `a` lives through all of it; `b` and `c` are killed in turn. Each second everybody's memory, descriptors and
//! write-ahead log are measured, and how long an event takes from its acknowledgement to a reader. Lines through
//! the second half of the samples must not rise.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::audience::Reader;
use crate::checks;
use crate::cluster::Cluster;
use crate::clusters_survive::number;
use crate::crowd::{self, Shift};
use crate::history;
use crate::nemesis::say;
use crate::process::Process;

/// Events that `a` and `b` keep: the data must not grow either.
const KEPT: u64 = 3000;
/// Time between two kills.
const LIFE: Duration = Duration::from_secs(15);
/// How long everybody may take at the end.
const CALM: Duration = Duration::from_secs(120);

/// One measure of one gateway over time.
struct Series {
    name: String,
    unit: &'static str,
    /// A rise over the second half that is no rise: a part of the mean, and something on top.
    slack: (f64, f64),
    /// A gateway that is killed starts small again: its memory says nothing.
    is_judged: bool,
    samples: Vec<(f64, f64)>,
}

impl Series {
    fn new(gateway: &str, what: &str, unit: &'static str, slack: (f64, f64), is_judged: bool) -> Self {
        Series { name: format!("{gateway} {what}"), unit, slack, is_judged, samples: Vec::new() }
    }

    fn second_half(&self) -> &[(f64, f64)] {
        &self.samples[self.samples.len() / 2..]
    }

    fn mean(&self) -> f64 {
        let half = self.second_half();
        half.iter().map(|(_, value)| value).sum::<f64>() / half.len().max(1) as f64
    }

    /// How much the line through the second half rises from its beginning to its end.
    fn rise(&self) -> f64 {
        let half = self.second_half();
        let count = half.len().max(1) as f64;
        let middle = half.iter().map(|(at, _)| at).sum::<f64>() / count;
        let mean = self.mean();
        let above: f64 = half.iter().map(|(at, value)| (at - middle) * (value - mean)).sum();
        let below: f64 = half.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        let length = half.last().map_or(0.0, |last| last.0) - half.first().map_or(0.0, |first| first.0);
        if below == 0.0 { 0.0 } else { above / below * length }
    }

    fn rises(&self) -> bool {
        let (part, more) = self.slack;
        self.is_judged && self.rise() > self.mean() * part + more
    }
}

/// Everything that is measured of one gateway.
struct Gauges {
    memory: Series,
    descriptors: Series,
    log: Series,
    lag: Series,
}

impl Gauges {
    fn new(gateway: &Process) -> Self {
        let (name, lives) = (gateway.name.as_str(), gateway.name == "a");
        Gauges {
            memory: Series::new(name, "memory", "KiB", (0.1, 4096.0), lives),
            descriptors: Series::new(name, "descriptors", "", (0.1, 8.0), lives),
            // A saw: it is emptied once it has 16 MiB.
            log: Series::new(name, "write-ahead log", "KiB", (0.1, 16384.0), true),
            lag: Series::new(name, "lag of a reader", "ms", (0.5, 25.0), lives),
        }
    }

    fn sample(&mut self, at: f64, gateway: &Process) {
        let log = gateway.data().join(format!("{}-wal", causeway::store::DATABASE_FILE));
        let bytes = std::fs::metadata(log).map_or(0, |file| file.len());
        self.memory.samples.push((at, gateway.resident_kib() as f64));
        self.descriptors.samples.push((at, gateway.descriptors() as f64));
        self.log.samples.push((at, bytes as f64 / 1024.0));
    }

    fn all(&self) -> [&Series; 4] {
        [&self.memory, &self.descriptors, &self.log, &self.lag]
    }
}

// F-34
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as told: tests/soak 30m"]
async fn nothing_grows_under_churn_and_kills() {
    let seconds = number("SOAK_SECONDS", 60);
    let mut cluster = Cluster::start(12, Duration::from_millis(25), KEPT).await;
    let began = Instant::now();
    let work = began + Duration::from_secs(seconds);
    let crowd = crowd::gather(&cluster, Shift { work, over: work + CALM, pause: Duration::from_millis(500) });
    let mut gauges: Vec<Gauges> = cluster.gateways.iter().map(Gauges::new).collect();
    let (mut next_kill, mut kills) = (began + LIFE, 0);
    while Instant::now() < work {
        tokio::time::sleep(Duration::from_secs(1)).await; // why: one sample a second
        let at = began.elapsed().as_secs_f64();
        for (gauge, gateway) in gauges.iter_mut().zip(&cluster.gateways) {
            gauge.sample(at, gateway);
        }
        if let Some(lag) = lag_of_a_reader(&cluster, kills, at as u64).await {
            gauges[0].lag.samples.push((at, lag));
        }
        if Instant::now() >= next_kill {
            kills += 1;
            cluster.gateways[1 + kills % 2].restart().await;
            next_kill = Instant::now() + LIFE;
        }
    }
    let all_answered = crowd::disperse(crowd).await;
    say(&format!("{seconds} s, {kills} kills\n{}", table(&gauges)));
    cluster.until_quiet().await;
    cluster.take_stock().await;
    let entries = cluster.history.read();
    say(&history::summary(&entries));
    checks::assert_all(&entries);
    assert!(all_answered, "somebody was never answered, or a stream never ended\n{}", cluster.logs());
    let rising: Vec<&str> =
        gauges.iter().flat_map(Gauges::all).filter(|one| one.rises()).map(|one| one.name.as_str()).collect();
    assert!(rising.is_empty(), "these grow: {rising:?}");
}

/// Pushes an event to `a` and waits until a reader has it; the time in milliseconds.
async fn lag_of_a_reader(cluster: &Cluster, kills: usize, nth: u64) -> Option<f64> {
    let gateway = &cluster.gateways[0];
    let run = format!("run_canary_{kills}_{nth}");
    let deadline = Instant::now() + Duration::from_secs(5);
    let client = cluster.client(0);
    client.push(&run, &format!("evt_{run}_0"), "agentos.run.step.completed", deadline).await?;
    let mut reader = Reader::new(&cluster.history, (&gateway.name, gateway.address), &run);
    let began = Instant::now();
    let seen = tokio::time::timeout_at(deadline, reader.visit_until(1)).await;
    seen.ok().map(|()| began.elapsed().as_secs_f64() * 1000.0)
}

fn table(gauges: &[Gauges]) -> String {
    let mut text = format!("{:<24}{:>8}{:>12}{:>12}{:>14}\n", "second half", "samples", "mean", "rise", "");
    for one in gauges.iter().flat_map(Gauges::all).filter(|one| !one.samples.is_empty()) {
        let verdict = match (one.is_judged, one.rises()) {
            (false, _) => "not judged",
            (true, true) => "GROWS",
            (true, false) => "steady",
        };
        let (count, mean, rise) = (one.second_half().len(), one.mean(), one.rise());
        writeln!(text, "{:<24}{count:>8}{mean:>12.1}{rise:>+12.1}{:>4}{verdict:>12}", one.name, one.unit)
            .expect("a line");
    }
    text
}

#[test]
fn a_rise_is_found_and_noise_is_not() {
    let series = |value: fn(f64) -> f64| Series {
        samples: (0..100).map(|at| (f64::from(at), value(f64::from(at)))).collect(),
        ..Series::new("a", "memory", "KiB", (0.1, 5.0), true)
    };
    assert!(series(|at| 100.0 + at).rises());
    assert!((series(|at| 100.0 + at).rise() - 49.0).abs() < 0.01);
    assert!(!series(|at| 100.0 + 20.0 * (at % 2.0)).rises());
    assert!(!series(|at| 1000.0 - at).rises());
}
