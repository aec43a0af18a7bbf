//! What the agent can do and what it costs: takes a second, and the share of a core that metering
//! needs. `cargo bench --bench agent`, on an idle machine; it takes some minutes.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::agent::{AgentSettings, Door, JouleAgent, Listen, LocalAgent};
use cryoflux::energy::probes::powercap_probes;
use cryoflux::energy::probes::sim::{Sensor, Simulated, Trace};
use cryoflux::energy::{
    Baseline, Bucket, BucketError, BucketPolicy, Clock, DEFAULT_HZ, Discovery, Given, IdleState,
    Inflow, LeaseId, Probe, ProbeInfo, RaplChoice, Refusal, SystemClock, Take,
};
use cryoflux::units::{Joules, Watts};
use tempfile::TempDir;
use tokio::sync::watch;

const THREADS: usize = 64;
/// A thread ends its leases after so many takes, since 4096 may be open at a time.
const ROUND: usize = 60;
const AMOUNT: Joules = Joules::from_smallest(1000);
const ZONES: usize = 4;
/// Runs this program as the hardware whose counters move.
const TICK: &str = "--tick-zones";

fn main() {
    let mut words = std::env::args().skip_while(|word| word != TICK).skip(1);
    if let Some(folder) = words.next() {
        return tick(Path::new(&folder));
    }
    println!("{:<52} {:>12}  target", "", "measured");
    takes_over_http("as fast as they can", Duration::ZERO);
    // All of them together take 2000 a second.
    takes_over_http("2000 a second", Duration::from_millis(32));
    takes_in_process();
    metering();
}

fn row(what: &str, measured: impl std::fmt::Display, target: &str) {
    println!("{what:<52} {measured:>12}  {target}");
}

fn bucket(folder: &Path, opening_grant: Joules) -> Bucket {
    let policy = BucketPolicy {
        cap: opening_grant,
        allowance: Watts(0.0),
        opening_grant,
    };
    Bucket::open(folder, policy, Timestamp::now()).unwrap()
}

/// Below the baseline, so that leases are charged what was set aside and no more.
fn board(clock: &Arc<dyn Clock>) -> Box<dyn Probe> {
    let trace = Arc::new(Trace::new([(1.0, 50.0)]));
    Box::new(Simulated::new(trace, Sensor::COUNTER, Arc::clone(clock)))
}

fn agent(
    folder: &Path,
    bucket: Bucket,
    probes: Vec<Box<dyn Probe>>,
    clock: Arc<dyn Clock>,
) -> LocalAgent {
    let baselines = folder.join("baselines");
    let infos: Vec<ProbeInfo> = probes.iter().map(|probe| probe.info().clone()).collect();
    let given = Given {
        state: IdleState::Bare,
        facts: BTreeMap::new(),
        now: Timestamp::now(),
    };
    Baseline::configured(&infos, Watts(60.0), given)
        .freeze(&baselines)
        .unwrap();
    let settings = AgentSettings {
        hz: DEFAULT_HZ,
        inflow: Inflow::Foreign,
        baselines,
        baseline_time: Duration::from_secs(3),
        idle_learn: None,
        idle: Some(Watts(60.0)),
    };
    let discovery = Discovery {
        probes,
        ..Discovery::default()
    };
    LocalAgent::start(discovery, bucket, clock, settings).unwrap()
}

/// Connections that stay open; the time in which leases are ended is not counted.
fn takes_over_http(how: &str, beat: Duration) {
    let folder = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let bucket = bucket(
        &folder.path().join("bucket"),
        Joules::from_smallest(1_000_000_000_000),
    );
    let probes = vec![board(&clock)];
    let agent = Arc::new(agent(folder.path(), bucket, probes, clock));
    let (stop, stopped) = watch::channel(false);
    let door = Door::open(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), None).unwrap();
    let &Listen::Tcp(at) = door.at() else {
        panic!("no TCP");
    };
    let server = thread::spawn({
        let agent = Arc::clone(&agent);
        move || door.serve(agent, stopped)
    });
    let barrier = Barrier::new(THREADS + 1);
    let is_over = AtomicBool::new(false);
    let latencies = Mutex::new(Vec::new());
    let mut time = Duration::ZERO;
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (agent, barrier, is_over) = (&agent, &barrier, &is_over);
            let latencies = &latencies;
            scope.spawn(move || {
                let mut client = Client::new(at);
                for round in 0.. {
                    barrier.wait();
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let ids = (0..ROUND).map(|count| format!("t{number}-{round}-{count}"));
                    let ids: Vec<String> = ids.collect();
                    // Evenly, where there is a beat.
                    thread::sleep(beat * number as u32 / THREADS as u32);
                    let take = |id: &String| {
                        let due = Instant::now() + beat;
                        let millis = client.take(id);
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        millis
                    };
                    let millis: Vec<f64> = ids.iter().map(take).collect();
                    barrier.wait();
                    latencies.lock().unwrap().extend(millis);
                    for id in ids {
                        agent.forfeit(&id.parse().unwrap()).unwrap();
                    }
                }
            });
        }
        loop {
            is_over.store(time >= Duration::from_secs(5), Ordering::SeqCst);
            barrier.wait();
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            let start = Instant::now();
            barrier.wait();
            time += start.elapsed();
        }
    });
    let mut millis = latencies.into_inner().unwrap();
    millis.sort_by(f64::total_cmp);
    let taken = agent
        .bucket_itself()
        .look(|ledger| ledger.accounts().forfeited);
    assert_eq!(taken.smallest(), millis.len() as i64 * AMOUNT.smallest());
    let at_share = |share: f64| millis[(millis.len() as f64 * share) as usize];
    let a_second = millis.len() as f64 / time.as_secs_f64();
    println!("64 clients over HTTP, every take on disk, {how}");
    let target = if beat.is_zero() { ">= 2000" } else { "" };
    row("  takes a second", format!("{a_second:.0}"), target);
    row("  p50, ms", format!("{:.1}", at_share(0.50)), "");
    row("  p99, ms", format!("{:.1}", at_share(0.99)), "<= 20");
    stop.send_replace(true);
    server.join().unwrap().unwrap();
}

/// A connection that is used again and again.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    fn new(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            answer: Vec::new(),
        }
    }

    /// How long a take lasts, in milliseconds.
    fn take(&mut self, id: &str) -> f64 {
        let body = format!("{{\"joules\":\"{AMOUNT}\",\"id\":\"{id}\"}}");
        let request = format!(
            "POST /v1/take HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let start = Instant::now();
        self.stream.write_all(request.as_bytes()).unwrap();
        self.answer.clear();
        // The answer is one object, whose end is the only closing brace.
        while self.answer.last() != Some(&b'}') {
            let mut part = [0; 1024];
            let length = self.stream.read(&mut part).unwrap();
            assert!(length > 0, "the agent hung up");
            self.answer.extend_from_slice(&part[..length]);
        }
        let millis = start.elapsed().as_secs_f64() * 1e3;
        let said = String::from_utf8_lossy(&self.answer);
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        millis
    }
}

/// One million asked for, where nine in ten are there. Every take and every end is on disk.
fn takes_in_process() {
    const ASKED: u64 = 1_000_000;
    const THERE: u64 = 900_000;
    let folder = TempDir::new().unwrap();
    let bucket = bucket(
        folder.path(),
        Joules::from_smallest(THERE as i64 * AMOUNT.smallest()),
    );
    let (next, taken) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let slowest_flush = thread::scope(|scope| {
        let takers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= ASKED {
                            return;
                        }
                        let id: LeaseId = format!("{number}").parse().unwrap();
                        let take = Take {
                            id: id.clone(),
                            joules: AMOUNT,
                            purpose: String::new(),
                            ttl: Duration::from_secs(3600),
                        };
                        match bucket.take(&take) {
                            Ok(_) => {
                                taken.fetch_add(1, Ordering::Relaxed);
                                bucket.forfeit(&id).unwrap();
                            }
                            Err(BucketError::Refused(Refusal::Short(_))) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        // The agent does this every ten seconds; the journal is started anew by it.
        let flusher = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                bucket.flush().unwrap();
                slowest = slowest.max(start.elapsed());
                thread::sleep(Duration::from_secs(1));
            }
            slowest
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        flusher.join().unwrap()
    });
    let time = start.elapsed();
    let (level, accounts) = bucket.look(|ledger| (ledger.level(), *ledger.accounts()));
    assert_eq!(taken.into_inner(), THERE, "exactly what was there is taken");
    assert_eq!(level, Joules::ZERO);
    assert_eq!(accounts.granted, accounts.forfeited);
    row(
        "one million takes in process, 64 threads, s",
        format!("{:.1}", time.as_secs_f64()),
        "",
    );
    row(
        "  takes and ends on disk, a second",
        format!("{:.0}", 2.0 * THERE as f64 / time.as_secs_f64()),
        "",
    );
    row("  overspent", "0 J", "0 J");
    row(
        "  slowest flush meanwhile, s",
        format!("{:.1}", slowest_flush.as_secs_f64()),
        "",
    );
    let sizes = ["journal.jsonl", "journal.1.jsonl"].map(|name| {
        let file = fs::metadata(folder.path().join(name));
        file.map_or(0, |file| file.len())
    });
    let longest = sizes.into_iter().max().unwrap() as f64 / 1e6;
    row("  longest journal, MB", format!("{longest:.1}"), "");
}

/// Four packages and a board, ten times a second, while nothing else is done.
fn metering() {
    let folder = TempDir::new().unwrap();
    let zones = folder.path().join("zones");
    for number in 0..ZONES {
        let zone = zones.join(format!("intel-rapl:{number}"));
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), format!("package-{number}\n")).unwrap();
        fs::write(zone.join("energy_uj"), format!("{}\n", start_of(number))).unwrap();
        fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
    }
    let mut hardware = Command::new(std::env::current_exe().unwrap())
        .arg(TICK)
        .arg(&zones)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let mut probes = powercap_probes(&zones, RaplChoice::Packages { dram: false }).unwrap();
    assert_eq!(probes.len(), ZONES);
    probes.push(board(&clock));
    let bucket = bucket(
        &folder.path().join("bucket"),
        Joules::from_smallest(1_000_000),
    );
    let agent = agent(folder.path(), bucket, probes, clock);
    // Finding the sensors' beat takes more looks than keeping it.
    thread::sleep(Duration::from_secs(3));
    let (rounds, time, ticks) = (agent.snapshot().seq, Instant::now(), own_ticks());
    thread::sleep(Duration::from_secs(20));
    let (seconds, rounds) = (time.elapsed().as_secs_f64(), agent.snapshot().seq - rounds);
    let share = (own_ticks() - ticks) as f64 / TICKS_A_SECOND / seconds;
    assert!(agent.snapshot().failing.is_empty());
    row(
        "CPU of metering 4 zones and a board, % of a core",
        format!("{:.2}", share * 100.0),
        "<= 0.3",
    );
    row(
        "  rounds a second",
        format!("{:.1}", rounds as f64 / seconds),
        "",
    );
    drop(hardware.stdin.take());
    hardware.wait().unwrap();
}

/// Linux counts processor time in these, whatever its own clock does.
const TICKS_A_SECOND: f64 = 100.0;

/// Processor time of this process, in user space and in the kernel.
fn own_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name may hold spaces, and ends at the last bracket.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

fn start_of(zone: usize) -> u64 {
    (zone as u64 + 1) * 30_000_000_000
}

/// The packages' counters: 15 W each, updated every millisecond, until the standard input ends.
fn tick(zones: &Path) {
    let files: Vec<File> = (0..ZONES)
        .map(|number| {
            let path = zones.join(format!("intel-rapl:{number}/energy_uj"));
            File::options().write(true).open(path).unwrap()
        })
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let _ = std::io::stdin().read(&mut [0]);
            is_over.store(true, Ordering::Relaxed);
        }
    });
    let start = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let joules = start.elapsed().as_micros() as u64 * 15;
        for (number, file) in files.iter().enumerate() {
            // As many digits as before, in one write.
            let text = format!("{}\n", start_of(number) + joules);
            file.write_all_at(text.as_bytes(), 0).unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}
