//! Leases that outlive their time, their holder, their bucket and their connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::agent::client::AgentUrl;
use cryoflux::energy::agent::{AgentError, JouleAgent, LocalAgent, RemoteAgent};
use cryoflux::energy::{
    Bucket, BucketPolicy, Clock, Lease, LeaseId, Mono, Refusal, SystemClock, Take,
};
use cryoflux::engine::{Metered, Part};
use cryoflux::units::{Joules, Watts};
use tempfile::TempDir;

use crate::agent::{POLICY, Served, agent_with, joules, local_agent, soon, take};

/// Room for leases that are large beside what a board uses in seconds.
const LARGE: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(4_000_000_000_000),
    allowance: Watts(0.0),
    opening_grant: Joules::from_smallest(4_000_000_000_000),
};
/// The highest power of the simulated board.
const BOARD_LIMIT: f64 = 600.0;
const LEASE: Joules = Joules::from_smallest(300_000_000_000);

/// A clock that runs eight times as fast.
struct Quick(Instant);

impl Quick {
    fn start() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for Quick {
    fn now(&self) -> Mono {
        Mono::default().plus(Duration::from_secs(60) + self.0.elapsed() * 8)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, moment: Mono) {
        thread::park_timeout(moment.since(self.now()) / 8);
    }
}

fn id(name: &str) -> LeaseId {
    name.parse().unwrap()
}

/// The journal as it is now in another folder: what a process leaves that is killed.
fn killed(folder: &Path) -> TempDir {
    let left = TempDir::new().unwrap();
    let bucket = left.path().join("bucket");
    fs::create_dir(&bucket).unwrap();
    let journal = folder.join("bucket/journal.jsonl");
    fs::copy(journal, bucket.join("journal.jsonl")).unwrap();
    left
}

fn on_disk(folder: &Path) -> BTreeMap<LeaseId, Lease> {
    let ledger = Bucket::peek(&folder.join("bucket"), LARGE).unwrap();
    ledger.unwrap().leases().clone()
}

fn restarted(folder: &Path, now: Timestamp) -> LocalAgent {
    agent_with(folder, LARGE, now, Arc::new(SystemClock::start()))
}

/// Both ways to an agent, each with 100 J of its own.
fn everywhere(check: impl Fn(&dyn JouleAgent)) {
    let folder = TempDir::new().unwrap();
    check(&local_agent(folder.path()));
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let url: AgentUrl = format!("http://{}", served.at).parse().unwrap();
    check(&RemoteAgent::connect(url, None).unwrap());
}

#[test]
fn a_lease_that_is_renewed_outlives_its_time_and_is_charged_what_was_measured() {
    everywhere(|agent| {
        let short = Take {
            ttl: Duration::from_secs(1),
            ..take("long-run", joules(80))
        };
        agent.take(&short).unwrap();
        agent.renew(&short.id, Duration::from_secs(60)).unwrap();
        // A shorter time takes nothing away.
        agent.renew(&short.id, Duration::from_secs(1)).unwrap();
        thread::sleep(Duration::from_millis(1200));
        let measured = agent.close(&short.id).unwrap();
        let closed = agent.settle(&short.id, None).unwrap();
        assert_eq!(closed.charged, measured.net());
        assert_eq!(agent.bucket().unwrap().accounts.forfeited, Joules::ZERO);
        let late = agent.renew(&short.id, Duration::from_secs(60));
        let has_ended = matches!(late, Err(AgentError::Refused(Refusal::Ended(_))));
        assert!(has_ended, "{late:?}");
        let none = agent.renew(&id("none"), Duration::from_secs(60));
        let is_none = matches!(none, Err(AgentError::Refused(Refusal::NoLease(_))));
        assert!(is_none, "{none:?}");
        agent.take(&take("open", joules(1))).unwrap();
        let eight_days = Duration::from_secs(8 * 24 * 3600);
        let error = agent.renew(&id("open"), eight_days).unwrap_err();
        assert!(error.to_string().contains("a lease must last"), "{error}");
    });
}

#[test]
fn a_run_that_goes_on_renews_its_lease() {
    let folder = TempDir::new().unwrap();
    let agent = Arc::new(local_agent(folder.path()));
    let ttl = Duration::from_millis(1000);
    let long = Take {
        ttl,
        ..take("long-run", joules(90))
    };
    agent.take(&long).unwrap();
    let asked: Arc<dyn JouleAgent> = agent.clone();
    let mut metered = Metered::start(asked, long.id.clone(), long.joules, ttl).unwrap();
    // Twice its time, with a sign of life in each quarter.
    for _ in 0..8 {
        thread::sleep(ttl / 4);
        metered.mark(Part::Train).unwrap();
        agent.tidy().unwrap();
    }
    let account = metered.close(Part::Eval).unwrap();
    account.end(&*agent, &long.id).unwrap();
    let bucket = agent.bucket().unwrap();
    assert_eq!(bucket.accounts.forfeited, Joules::ZERO);
    assert_eq!(bucket.accounts.charged, account.spent());
}

#[test]
fn a_client_that_died_is_charged_what_the_agent_measured() {
    everywhere(|agent| {
        agent.take(&take("dead", joules(80))).unwrap();
        soon("something is measured", || {
            agent.progress(&id("dead")).unwrap().measured.net() > joules(2)
        });
        let end = agent.abandon(&id("dead")).unwrap();
        assert!(end.measured > joules(2), "{end:?}");
        assert_eq!(
            (end.charged, end.unseen),
            (end.measured, Some(Duration::ZERO))
        );
        assert_eq!(end.reserved, joules(80));
        let view = agent.bucket().unwrap();
        assert_eq!(view.level_joules, joules(100) - end.charged);
        assert!(view.leases.is_empty());
        // Asked again, it has ended so.
        let again = agent.abandon(&id("dead")).unwrap();
        assert_eq!((again.charged, again.reserved), (end.charged, end.reserved));
        assert_eq!(agent.forfeit(&id("dead")).unwrap().charged, end.charged);
        let none = agent.abandon(&id("none"));
        let is_none = matches!(none, Err(AgentError::Refused(Refusal::NoLease(_))));
        assert!(is_none, "{none:?}");
    });
}

#[test]
fn a_forfeited_lease_is_charged_all_that_was_measured_also_since_the_last_record() {
    everywhere(|agent| {
        agent.take(&take("over", joules(1))).unwrap();
        soon("more is measured than was taken", || {
            agent.progress(&id("over")).unwrap().measured.net() > joules(2)
        });
        let measured = agent.close(&id("over")).unwrap().net();
        assert_eq!(agent.forfeit(&id("over")).unwrap().charged, measured);
    });
}

#[test]
fn an_agent_that_was_restarted_does_not_call_an_open_lease_unknown() {
    let folder = TempDir::new().unwrap();
    let open = take("open", joules(5));
    local_agent(folder.path()).take(&open).unwrap();
    let served = Served::start(&folder);
    let url: AgentUrl = format!("http://{}", served.at).parse().unwrap();
    let agent = RemoteAgent::connect(url, None).unwrap();
    for said in [agent.progress(&open.id).err(), agent.close(&open.id).err()] {
        assert!(matches!(said, Some(AgentError::Unmeasured(_))), "{said:?}");
    }
    assert_eq!(
        agent.settle(&open.id, Some(joules(3))).unwrap().charged,
        joules(3)
    );
    let none = agent.progress(&open.id);
    let is_none = matches!(none, Err(AgentError::Refused(Refusal::NoLease(_))));
    assert!(is_none, "{none:?}");
}

#[test]
fn what_a_process_used_before_it_was_killed_is_on_disk_and_the_rest_of_its_lease_is_not_charged() {
    let folder = TempDir::new().unwrap();
    let agent = agent_with(folder.path(), LARGE, Timestamp::now(), Quick::start());
    let lease = take("dead", LEASE);
    // On a busy machine the meter may seem to hang for a moment, at this pace.
    soon("it is taken", || agent.take(&lease).is_ok());
    // Nobody asks for anything.
    soon("it is on disk", || {
        on_disk(folder.path())[&lease.id].measured > joules(20)
    });
    let left = killed(folder.path());
    let noted = on_disk(left.path())[&lease.id].clone();
    // Three seconds after the last record, and long after the lease's time.
    let at = noted.measured_at.unwrap();
    let longest = Duration::from_secs(11);
    for later in [3, 10_000].map(Duration::from_secs) {
        let folder = killed(left.path());
        let restarted = restarted(folder.path(), at.plus(later));
        let end = restarted.abandon(&lease.id).unwrap();
        assert_eq!((end.measured, end.reserved), (noted.measured, LEASE));
        let unseen = end.unseen.unwrap();
        let since = unseen - Duration::from_millis(noted.unseen_ms);
        assert!((later.min(longest)..=longest).contains(&since), "{end:?}");
        let bound = Joules::from_f64(BOARD_LIMIT * unseen.as_secs_f64()).unwrap();
        assert_eq!(end.charged, (end.measured + bound).min(LEASE));
        assert!(end.charged.as_f64() < 0.1 * LEASE.as_f64(), "{end:?}");
        let level = restarted.bucket().unwrap().level_joules;
        assert_eq!(level, LARGE.opening_grant - end.charged);
    }
}

#[test]
fn ten_processes_that_die_at_once_never_cost_their_leases() {
    let mut folder = TempDir::new().unwrap();
    let mut charged = Joules::ZERO;
    for number in 0..10 {
        let agent = restarted(folder.path(), Timestamp::now());
        let lease = take(&format!("dead-{number}"), LEASE);
        agent.take(&lease).unwrap();
        let left = killed(folder.path());
        drop(agent);
        let agent = restarted(left.path(), Timestamp::now());
        let end = agent.abandon(&lease.id).unwrap();
        assert!(end.charged >= end.measured && end.unseen <= Some(Duration::from_secs(11)));
        charged += end.charged;
        let level = agent.bucket().unwrap().level_joules;
        assert_eq!(level, LARGE.opening_grant - charged);
        drop(agent);
        folder = left;
    }
    // Eleven seconds at the highest power each, at the very most.
    assert!(charged <= joules(10 * 11 * 600), "{charged} J");
    assert!(charged > Joules::ZERO, "nobody saw what they used");
}

#[test]
fn time_that_nobody_saw_counts_whole_where_the_clock_was_set_back() {
    let folder = TempDir::new().unwrap();
    let agent = restarted(folder.path(), Timestamp::now());
    let lease = take("dead", LEASE);
    agent.take(&lease).unwrap();
    let left = killed(folder.path());
    let restarted = restarted(left.path(), Timestamp::from_millis(0));
    let end = restarted.abandon(&lease.id).unwrap();
    assert_eq!(end.unseen, Some(Duration::from_secs(11)));
}

#[test]
fn what_a_receipt_proves_is_charged_once_to_a_bucket_that_does_not_know_it() {
    everywhere(|agent| {
        let level = || agent.bucket().unwrap().level_joules;
        let missed = |name: &str, whole| {
            agent
                .charge_missed(&id(name), joules(200), joules(whole))
                .unwrap()
        };
        let closed = missed("lost", 150);
        assert_eq!(
            (closed.reserved, closed.charged),
            (joules(200), joules(150))
        );
        assert_eq!(level(), joules(-50));
        assert_eq!(missed("lost", 7), closed);
        assert_eq!(agent.settle(&id("lost"), None).unwrap(), closed);
        assert_eq!(level(), joules(-50));
        assert_eq!(agent.bucket().unwrap().accounts.charged, joules(150));
        let negative = agent.charge_missed(&id("odd"), joules(1), joules(-1));
        assert!(negative.is_err());
        // A lease that is open after all is settled so.
        agent.grant(joules(90)).unwrap();
        agent.take(&take("open", joules(30))).unwrap();
        assert_eq!(missed("open", 5).charged, joules(5));
        assert_eq!(level(), joules(35));
    });
}

/// A way to an agent that drops as many connections as it is told to.
struct Bridge {
    at: SocketAddr,
    to_drop: Arc<AtomicUsize>,
}

impl Bridge {
    fn to(agent: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let to_drop = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&to_drop);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let take = |left: usize| left.checked_sub(1);
                let dropped = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
                if dropped.is_err() {
                    thread::spawn(move || carry(stream, agent));
                }
            }
        });
        Self { at, to_drop }
    }
}

/// Carries what one side says to the other, both ways.
fn carry(client: TcpStream, agent: SocketAddr) {
    let agent = TcpStream::connect(agent).unwrap();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _: io::Result<()> = to.shutdown(Shutdown::Write);
    };
    let both = (client.try_clone().unwrap(), agent.try_clone().unwrap());
    thread::spawn(move || copy(both.0, both.1));
    copy(agent, client);
}

#[test]
fn a_request_whose_connection_breaks_is_sent_again_unless_twice_is_too_much() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let bridge = Bridge::to(served.at);
    let url: AgentUrl = format!("http://{}", bridge.at).parse().unwrap();
    let agent = RemoteAgent::connect(url.clone(), None).unwrap();
    let broken = |count| bridge.to_drop.store(count, Ordering::SeqCst);
    broken(1);
    assert_eq!(agent.bucket().unwrap().level_joules, joules(100));
    broken(3);
    assert_eq!(agent.about().unwrap().probes.len(), 1);
    broken(1);
    agent.take(&take("a", joules(40))).unwrap();
    broken(1);
    agent.progress(&id("a")).unwrap();
    broken(2);
    assert_eq!(
        agent.settle(&id("a"), Some(joules(40))).unwrap().charged,
        joules(40)
    );
    assert_eq!(bridge.to_drop.load(Ordering::SeqCst), 0);
    assert_eq!(agent.bucket().unwrap().level_joules, joules(60));
    // Nobody knows whether a grant whose answer is lost was made.
    broken(1);
    let lost = agent.grant(joules(10));
    assert!(
        matches!(lost, Err(AgentError::Unreachable { .. })),
        "{lost:?}"
    );
    assert_eq!(served.agent.bucket().unwrap().level_joules, joules(60));
    // A wrong address shows at once.
    broken(1);
    assert!(RemoteAgent::connect(url, None).is_err());
    assert_eq!(POLICY.opening_grant, joules(100));
}
