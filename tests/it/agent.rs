//! The agent over real sockets: its answers, bad input, slow clients, and the trait from both sides.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::digest::Digest;
use cryoflux::energy::agent::client::AgentUrl;
use cryoflux::energy::agent::{
    AgentError, AgentSettings, Door, JouleAgent, Listen, ListenError, LocalAgent, Relearn,
    RemoteAgent, Status, Token, read_token,
};
use cryoflux::energy::probes::sim::{Sensor, Simulated, Trace};
use cryoflux::energy::{
    Affordable, Baseline, Bucket, BucketError, BucketPolicy, Clock, Discovery, Given, IdleState,
    Inflow, LeaseId, Probe, Refusal, SystemClock, Take,
};
use cryoflux::units::{Joules, Watts};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

type Answer = io::Result<(u16, Value)>;

const JSON: &str = "Content-Type: application/json\r\n";
pub const POLICY: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(120_000_000),
    allowance: Watts(0.0),
    opening_grant: Joules::from_smallest(100_000_000),
};

pub fn joules(whole: i64) -> Joules {
    Joules::from_smallest(whole * 1_000_000)
}

pub fn take(name: &str, joules: Joules) -> Take {
    Take {
        id: name.parse().unwrap(),
        joules,
        purpose: "a test".into(),
        ttl: Duration::from_secs(600),
    }
}

/// A board of 25 W whose baseline is 10 W, and a bucket of 100 J that nothing but grants fills.
pub fn local_agent(folder: &Path) -> LocalAgent {
    agent_with(
        folder,
        POLICY,
        Timestamp::now(),
        Arc::new(SystemClock::start()),
    )
}

/// The same with another bucket, whose calendar shows `now`, and a clock of its own.
pub fn agent_with(
    folder: &Path,
    policy: BucketPolicy,
    now: Timestamp,
    clock: Arc<dyn Clock>,
) -> LocalAgent {
    let trace = Arc::new(Trace::new([(1.0, 25.0)]));
    let board = Simulated::new(trace, Sensor::COUNTER, Arc::clone(&clock));
    let (none, learned) = (BTreeMap::new(), Timestamp::from_millis(0));
    let infos = [board.info().clone()];
    let given = Given {
        state: IdleState::Bare,
        facts: none,
        now: learned,
    };
    let idle = Baseline::configured(&infos, Watts(10.0), given);
    let baselines = folder.join("baselines");
    idle.freeze(&baselines).unwrap();
    let bucket = Bucket::open(&folder.join("bucket"), policy, now).unwrap();
    let mut discovery = Discovery::default();
    discovery.probes.push(Box::new(board));
    let settings = AgentSettings {
        hz: 10.0,
        inflow: Inflow::Off,
        baselines,
        baseline_time: Duration::from_secs(2),
        idle_learn: None,
        idle: Some(Watts(10.0)),
    };
    LocalAgent::start(discovery, bucket, clock, settings).unwrap()
}

/// An agent that listens, on a thread of the test.
pub struct Served {
    pub agent: Arc<LocalAgent>,
    pub at: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Served {
    pub fn start(folder: &TempDir) -> Self {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        Self::with(folder.path(), &listen, None)
    }

    fn with(folder: &Path, listen: &Listen, token: Option<Token>) -> Self {
        let agent = Arc::new(local_agent(folder));
        let (stop, stopped) = watch::channel(false);
        let door = Door::open(listen, token).unwrap();
        let at = door.at().clone();
        let served = Arc::clone(&agent);
        let thread = thread::spawn(move || door.serve(served, stopped).unwrap());
        // A Unix socket has no port.
        let port = at.to_string().rsplit(':').next().unwrap().parse();
        Self {
            agent,
            at: ([127, 0, 0, 1], port.unwrap_or(0)).into(),
            stop,
            thread,
        }
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.thread.join().unwrap();
    }

    fn get(&self, path: &str) -> (u16, Value) {
        ask(self.at, &format!("GET {path}"), "", "").unwrap()
    }

    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        ask(self.at, &format!("POST /v1/{path}"), JSON, body).unwrap()
    }

    /// What the bucket holds, and the same with what is set aside.
    fn levels(&self) -> (Joules, Joules) {
        let bucket = self.agent.bucket_itself();
        bucket.look(|ledger| (ledger.level(), ledger.level() + ledger.reserved()))
    }
}

pub fn soon(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 5, "it takes too long: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    // Thousands at once would overflow the kernel's queue, and wait for a second.
    thread::sleep(Duration::from_micros(100));
    let stream = TcpStream::connect(at).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// Sends any bytes and reads the answer until the agent hangs up.
fn talk(at: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(at);
    // The agent may answer and hang up before it has read everything.
    let sent = stream.write_all(request);
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("{sent:?}, {received:?}")))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Method and path, more headers, and the body.
fn ask(at: SocketAddr, what: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let host = ["", "Host: localhost\r\n"][usize::from(!headers.contains("Host:"))];
    let body = body.as_ref();
    let length = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    let head = format!("{what} HTTP/1.1\r\n{host}{headers}{length}\r\n");
    talk(at, &[head.as_bytes(), body].concat())
}

#[test]
fn a_sample_and_a_take_have_the_originals_fields_and_a_take_is_all_or_nothing() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let number = |field: &str| served.get("/v1/sample").1[field].as_f64().unwrap();
    soon("it shows 25 W", || (24.0..26.0).contains(&number("gpu_w")));
    assert!(number("ts") > 1.7e9 && served.get("/metrics").0 == 200);
    assert_eq!((number("idle_gpu_w"), number("bucket_j")), (10.0, 100.0));
    // There is no processor's probe, and null says so.
    let (_, sample) = served.get("/v1/sample");
    assert!(sample["cpu_w"].is_null() && sample["idle_cpu_w"].is_null());
    for path in ["about", "bucket", "baseline", "openapi.json"] {
        let (status, page) = served.get(&format!("/v1/{path}"));
        assert!(status == 200 && page.is_object(), "{path}: {page}");
    }
    // The text that is hashed can be put together from the answer.
    let text = format!("{}:{}", sample["ts"], sample["bucket_j"]);
    assert_eq!(sample["hash"], Digest::of(text.as_bytes()).hex());
    for (asked, expected) in [
        ("?limit=5", 200),
        ("", 200),
        ("?limit=1001", 400),
        ("?n=5", 400),
    ] {
        let (status, said) = served.get(&format!("/v1/bucket/history{asked}"));
        assert_eq!(status, expected, "{asked}: {said}");
    }
    let (status, taken) = served.post("take", r#"{"joules":40.25}"#);
    assert_eq!((status, &taken["ok"]), (200, &json!(true)));
    assert_eq!(taken["remaining_j"], 59.75);
    let (status, short) = served.post("take", r#"{"joules":60,"id":"much"}"#);
    assert!(status == 409 && short["error"].is_string(), "{short}");
    assert!(short["ok"] == false && short["short_j"] == 0.25, "{short}");
    let (status, all) = served.post("take", r#"{"joules":"59.75","id":"much"}"#);
    assert_eq!((status, &all["remaining_j"]), (200, &json!(0.0)), "{all}");
}

/// What every agent does, wherever it runs. It starts with 100 of 120 J.
fn any_agent(agent: &dyn JouleAgent) {
    let level = || agent.bucket().unwrap().level_joules;
    let take = |name: &str, whole| agent.take(&take(name, joules(whole)));
    let settle = |id: &LeaseId, whole| agent.settle(id, Some(joules(whole)));
    let [a, b, c, none] = &["a", "b", "c", "none"].map(|name| name.parse().unwrap());
    assert_eq!(agent.about().unwrap().probes[0].id, "sim:board");
    assert_eq!(agent.sample().unwrap().status, Status::Ok);
    let baseline = agent.baseline(IdleState::Bare, Relearn::IfAbsent, &mut |_| ());
    assert_eq!(baseline.unwrap().watts(), Watts(10.0));
    // What does not fit under the cap is not granted.
    assert_eq!(agent.grant(joules(50)).unwrap(), joules(20));
    let taken = take("a", 30).unwrap();
    assert_eq!((taken.reserved, taken.level), (joules(30), joules(90)));
    assert_eq!(take("a", 30).unwrap(), taken);
    for (name, whole, cause) in [("a", 31, "another amount"), ("zero", 0, "not an amount")] {
        let error = take(name, whole).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }
    let short = |whole| match take("short", whole) {
        Err(AgentError::Refused(Refusal::Short(short))) => (short.missing, short.affordable),
        other => panic!("{other:?}"),
    };
    assert_eq!(short(100), (joules(10), Affordable::NeverWithoutGrant));
    assert_eq!(short(1000), (joules(910), Affordable::AboveCap(POLICY.cap)));
    assert_eq!(level(), joules(90));
    let progress = || agent.progress(a).unwrap();
    soon("it is measured", || progress().measured.updates >= 12);
    let progress = progress();
    let watts = progress.measured.net().per(progress.measured.time).0;
    assert!((10.0..20.0).contains(&watts), "{progress:?}");
    let measured = agent.close(a).unwrap();
    assert!(measured.time >= progress.measured.time);
    assert_eq!(agent.close(a).unwrap(), measured);
    let closed = agent.settle(a, None).unwrap();
    assert_eq!(closed.charged, measured.net());
    assert_eq!(level(), joules(120) - measured.net());
    assert_eq!(settle(a, 99).unwrap(), closed);
    assert_eq!(agent.forfeit(a).unwrap(), closed);
    assert_eq!(take("a", 30).unwrap().level, level());
    // A value that is stated counts when it is more; what is forfeited is charged in full.
    take("b", 20).unwrap();
    assert_eq!(settle(b, 21).unwrap().charged, joules(21));
    take("c", 15).unwrap();
    assert_eq!(agent.forfeit(c).unwrap().charged, joules(15));
    assert_eq!(settle(c, 1).unwrap().charged, joules(15));
    assert!(agent.progress(none).is_err() && agent.close(none).is_err());
    for result in [settle(none, 1), agent.forfeit(none)] {
        let is_none = matches!(result, Err(AgentError::Refused(Refusal::NoLease(_))));
        assert!(is_none, "{result:?}");
    }
    let view = agent.bucket().unwrap();
    assert!(view.leases.is_empty() && view.reserved_joules == Joules::ZERO);
    let sums = view.accounts;
    assert_eq!(level(), sums.granted - sums.charged - sums.forfeited);
}

#[test]
fn who_uses_an_agent_cannot_tell_where_it_runs() {
    let folders = [(); 3].map(|()| TempDir::new().unwrap());
    any_agent(&local_agent(folders[0].path()));
    let tcp = Served::start(&folders[1]);
    let url = format!("http://{}", tcp.at).parse().unwrap();
    any_agent(&RemoteAgent::connect(url, None).unwrap());
    let socket = folders[2].path().join("agent.sock");
    let unix = Served::with(folders[2].path(), &Listen::Unix(socket.clone()), None);
    let url: AgentUrl = format!("unix:{}", socket.display()).parse().unwrap();
    any_agent(&RemoteAgent::connect(url.clone(), None).unwrap());
    unix.stop();
    assert!(!socket.exists(), "the socket is removed");
    let gone = RemoteAgent::connect(url, None).err().unwrap();
    let is_clear = matches!(gone, AgentError::Unreachable { .. }) && gone.hint().is_some();
    assert!(is_clear, "{gone}");
}

/// Status and path, then bodies with two spaces before each.
const BAD_BODIES: &str = r#"
400 POST /v1/take  {"jules":1}  {"joules":1,"more":1}  {"joules":1,"joules":1}  [5]
400 POST /v1/take  {"joules":1,"id":""}  {"joules":1,"id":"a b"}  {"joules":1,"id":"../a"}
400 POST /v1/take  {"joules":1,"id":"ä"}  {"joules":1,"id":"a\nb"}  {"joules":1,"id":5}
400 POST /v1/take  {"joules":1,"ttl_s":0}  {"joules":1,"ttl_s":0.5}  {"joules":1,"ttl_s":-1}
400 POST /v1/take  {"joules":1,"ttl_s":1e300}  {"joules":1,"ttl_s":604801}  {"joules":1,"purpose":1}
400 POST /v1/take  {"joules":1,"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}
409 POST /v1/take  {"joules":2,"id":"open"}
400 POST /v1/settle  {"lease":"open","joules":-1}  {"lease":"open","joules":1e300}  ["open"]
404 POST /v1/settle  {"lease":"unknown"}  {"lease":"unknown","joules":1}
400 POST /v1/close  {"lease":"a b"}  {"lease":"open","more":1}  {"lease":5}
404 POST /v1/close  {"lease":"unknown"}
404 POST /v1/forfeit  {"lease":"unknown"}
404 POST /v1/abandon  {"lease":"unknown"}
400 POST /v1/abandon  {"lease":""}  {"lease":"open","seconds":1}
404 POST /v1/renew  {"lease":"unknown","ttl_s":60}
400 POST /v1/renew  {"lease":"open"}  {"lease":"open","ttl_s":0}  {"lease":"open","ttl_s":604801}
400 POST /v1/renew  {"lease":"open","ttl_s":-1}  {"lease":"open","ttl_s":1e300}  {"lease":"a b","ttl_s":60}
400 POST /v1/missed  {"lease":"new","joules":1}  {"lease":"new","reserved":1,"joules":-1}
400 POST /v1/missed  {"lease":"new","reserved":-1,"joules":1}  {"lease":"a b","reserved":1,"joules":1}
400 POST /v1/stir  {"seconds":-1}  {"seconds":3601}  {"seconds":1e300}  {"seconds":"1"}  [1]
400 POST /v1/grant  [5]  {"joules":5,"more":1}
400 POST /v1/baseline  {"state":"asleep","anew":false}  {"state":"bare"}  {"state":"bare","anew":true,"or_gross":true}
404 GET /  -
404 GET /v1/leases/unknown  -
400 GET /v1/leases/a%20b  -
400 GET /v1/leases/%ff  -
405 GET /v1/take  -
405 DELETE /v1/sample  -
"#;
const BAD_AMOUNTS: &str = r#"NaN Infinity -Infinity 0 -5 -0.000001 1e300 1e-7 0.0000001 "1e2" ""
    "+5" "NaN" 99999999999999999999 null true [1] {}"#;
const BAD_HEADERS: &str = "415 X: y|415 Content-Type: text/plain|415 Content-Type: text/json|\
    415 Content-Type: application/x-www-form-urlencoded|403 Host: evil.example|\
    403 Host: localhost.evil.example:8787|403 Host: 127.0.0.1.evil.example";
const OWN: &str = "localhost LOCALHOST:1 127.0.0.1 127.0.0.1:8787 [::1] [::1]:8787";

#[test]
fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let at = served.at;
    served.post("take", r#"{"joules":1,"id":"open"}"#);
    let mut wrong = Vec::new();
    let mut check = |status: &str, what: &str, headers: &str, body: &str| {
        let before = served.levels();
        let (got, said) = ask(at, what, headers, body).unwrap();
        let is_clear = said["ok"] == false && said["error"].as_str().is_some_and(|e| e.len() > 5);
        let is_same = served.levels() == before;
        if got.to_string() != status || !is_clear || !is_same {
            let request = format!("{what} {headers:?} {body:.80}: {got} for {status}");
            wrong.push(format!("{request}, {said}, same level: {is_same}"));
        }
    };
    for amount in BAD_AMOUNTS.split_whitespace() {
        let body = format!("{{\"joules\":{amount}}}");
        check("400", "POST /v1/take", JSON, &body);
        check("400", "POST /v1/grant", JSON, &body);
    }
    for body in ["", " ", "{", "null", "7", "\"\"", "[]", "{}", "{}{}", "\0"] {
        let paths = "take renew settle close forfeit abandon missed grant stir";
        for path in paths.split(' ') {
            check("400", &format!("POST /v1/{path}"), JSON, body);
        }
    }
    for line in BAD_BODIES.trim().lines() {
        let (status, rest) = line.split_once(' ').unwrap();
        let mut words = rest.split("  ");
        let what = words.next().unwrap();
        words.for_each(|body| check(status, what, JSON, body));
    }
    for case in BAD_HEADERS.split('|') {
        let (status, header) = case.split_once(' ').unwrap();
        let header = format!("{header}\r\n");
        check(status, "POST /v1/take", &header, r#"{"joules":5}"#);
    }
    check("413", "POST /v1/take", JSON, &"x".repeat(20_000));
    for host in OWN.split(' ').map(|host| format!("Host: {host}\r\n")) {
        let (status, _) = ask(at, "GET /v1/sample", &host, "").unwrap();
        wrong.extend((status != 200).then_some(host));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Ten megabytes, with their length and in one chunk: an answer, or a closed connection.
    let huge = "x".repeat(10 << 20);
    let start = format!("POST /v1/take HTTP/1.1\r\nHost: localhost\r\n{JSON}");
    let chunked = format!("{start}Transfer-Encoding: chunked\r\n\r\na00000\r\n{huge}");
    let before = served.levels();
    for request in [
        &chunked,
        &format!("{start}X: {huge}"),
        "JUNK\r\n\r\n",
        &huge,
    ] {
        let answer = talk(at, request.as_bytes());
        assert!(answer.is_err() || answer.is_ok_and(|(status, _)| (400..500).contains(&status)));
    }
    let answer = ask(at, "POST /v1/take", JSON, &huge);
    assert!(answer.is_err() || answer.is_ok_and(|(status, _)| status == 413));
    assert!(served.get("/v1/sample").0 == 200 && served.levels() == before);
}

#[test]
fn no_body_whatsoever_breaks_the_agent_or_fills_the_bucket() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    for name in ["a", "b", "c"] {
        served.post("take", &format!(r#"{{"joules":5,"id":"{name}"}}"#));
    }
    let paths = "take renew settle close forfeit abandon missed grant stir baseline".split(' ');
    let path = prop::sample::select(paths.collect::<Vec<_>>());
    let random = (path, prop::collection::vec(any::<u8>(), 0..120));
    // Good bodies with one byte changed, which many of them survive.
    let good = vec![
        ("take", r#"{"joules":1.5,"id":"a","ttl_s":60}"#),
        ("settle", r#"{"lease":"a","joules":2.5}"#),
        ("close", r#"{"lease":"b"}"#),
        ("forfeit", r#"{"lease":"c"}"#),
        ("renew", r#"{"lease":"a","ttl_s":60}"#),
        ("stir", r#"{"seconds":1.5}"#),
    ];
    let place = (any::<prop::sample::Index>(), any::<u8>());
    let bent = (prop::sample::select(good), place).prop_map(|((path, body), (at, byte))| {
        let mut body = Vec::from(body);
        *at.get_mut(&mut body) = byte;
        (path, body)
    });
    let requests = prop_oneof![random, bent];
    let held = Cell::new(served.levels().1);
    let mut config = Config::with_cases(400);
    config.failure_persistence = None;
    let send = |(path, body): (&str, Vec<u8>)| {
        let (status, _) = ask(served.at, &format!("POST /v1/{path}"), JSON, &body)?;
        prop_assert!(status < 500 || status == 503, "{}", status);
        let now = served.levels().1;
        prop_assert!(now <= held.replace(now), "{} J", now);
        Ok(())
    };
    TestRunner::new(config).run(&requests, send).unwrap();
    assert!(served.get("/v1/sample").0 == 200);
}

#[test]
fn who_spends_shows_the_token_and_who_looks_need_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
    chmod(0o644);
    let readable = read_token(&path).unwrap_err();
    assert!(matches!(readable, ListenError::Readable(_)) && readable.hint().is_some());
    chmod(0o600);
    let token = read_token(&path).unwrap();
    // At an address that others reach.
    let public = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let refused = Door::open(&public, None).map(|_| ());
    assert!(matches!(refused, Err(ListenError::Public(_))));
    // A socket has an owner, a port has none.
    let socket = Listen::Unix(folder.path().join("agent.sock"));
    let door = Door::open(&socket, None).unwrap();
    assert!(!door.is_open_to_others());
    door.close().unwrap();
    assert!(!folder.path().join("agent.sock").exists());
    let port = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    assert!(Door::open(&port, None).unwrap().is_open_to_others());
    let served = Served::with(folder.path(), &public, Some(Token::new(&token)));
    let take_with = |shown: &str| {
        let headers = format!("{JSON}{}\r\n", shown.replace("TOKEN", &token));
        ask(served.at, "POST /v1/take", &headers, r#"{"joules":1}"#).unwrap()
    };
    let before = served.levels();
    let bad = "X: TOKEN|Authorization: TOKEN|Authorization: Basic TOKEN|Authorization: Bearer|\
        Authorization: Bearer wrong|Authorization: Bearer TOKENx|Authorization: Bearer TOKEN 1";
    for shown in bad.split('|') {
        let (status, said) = take_with(shown);
        assert!(status == 401 && said["error"].is_string(), "{shown}");
    }
    for path in "renew settle close forfeit abandon missed grant stir baseline".split(' ') {
        assert_eq!(served.post(path, "{}").0, 401, "{path}");
    }
    assert_eq!(served.levels(), before);
    assert_eq!(take_with("Authorization: Bearer TOKEN").0, 200);
    for path in ["/v1/sample", "/v1/about", "/v1/bucket", "/metrics"] {
        assert_eq!(served.get(path).0, 200, "{path}");
    }
    let url: AgentUrl = format!("http://{}", served.at).parse().unwrap();
    let stranger = RemoteAgent::connect(url, None).unwrap();
    let said = stranger.grant(joules(1)).unwrap_err().to_string();
    assert!(said.contains("token"), "{said}");
}

/// In a process of its own, so that memory and file handles are all its own.
#[cfg(target_os = "linux")]
#[test]
fn slow_clients_do_not_stop_the_agent() {
    const RAISED: &str = "ulimit -n $(ulimit -Hn); export CRYO_TEST_ALONE=$(ulimit -n)
        exec \"$0\" --exact --nocapture \"$1\"";
    let Ok(handles) = std::env::var("CRYO_TEST_ALONE") else {
        let module = module_path!().split_once("::").unwrap().1;
        let mut child = Command::new("sh");
        child
            .args(["-c", RAISED])
            .arg(std::env::current_exe().unwrap());
        child.arg(format!("{module}::slow_clients_do_not_stop_the_agent"));
        let child = child.output().unwrap();
        let said = [child.stdout, child.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        let is_good = child.status.success() && said[0].contains("1 passed");
        return assert!(is_good, "{}\n{}", said[0], said[1]);
    };
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let statm = || fs::read_to_string("/proc/self/statm").unwrap();
    let memory = || statm().split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    // The agent holds 256 of them, and its own files.
    let count = handles.parse().map_or(2000, |all: u64| all - 356);
    assert!(count > 256, "only {handles} file handles");
    let pages = memory();
    let idle: Vec<TcpStream> = (0..count.min(2000)).map(|_| connect(served.at)).collect();
    for _ in 0..100 {
        let start = Instant::now();
        let (status, _) = ask(served.at, "GET /v1/sample", "", "").unwrap();
        assert_eq!(status, 503);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    let grown = memory().saturating_sub(pages);
    assert!(grown < 8192, "{grown} pages for {count} connections");
    drop(idle);
    soon("it answers when they are gone", || {
        served.get("/v1/sample").0 == 200
    });
    // Clients that never hang up by themselves are cut off, whatever they wait with.
    let get = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let header = format!("POST /v1/take HTTP/1.1\r\nHost: localhost\r\n{JSON}");
    let body = format!("{header}Content-Length: 13\r\n\r\n{{\"joul");
    let starts = [("half a header", header.as_str()), ("half a body", &body)];
    let starts = [[("nothing", ""), ("no second request", get)], starts].concat();
    let slow = |start: &str| {
        let mut stream = connect(served.at);
        stream.write_all(start.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let starts = starts.iter().cycle().take(255);
    let mut held: Vec<_> = starts.map(|(what, start)| (*what, slow(start))).collect();
    // One asks and asks, and never reads an answer.
    let (mut deaf, mut sent, requests) = (slow(""), 0, get.repeat(1000));
    soon("all places are taken", || served.get("/v1/sample").0 == 503);
    let is_waiting = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let (start, mut is_deaf) = (Instant::now(), true);
    while (is_deaf || !held.is_empty()) && start.elapsed() < Duration::from_secs(15) {
        held.retain_mut(|(_, stream)| {
            let read = stream.read(&mut [0; 4096]);
            read.as_ref().map_or_else(is_waiting, |length| *length > 0)
        });
        match deaf.write(&requests.as_bytes()[sent..]) {
            Ok(length) => sent = (sent + length) % requests.len(),
            Err(error) => is_deaf = is_waiting(&error),
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut stuck: BTreeSet<&str> = held.iter().map(|(what, _)| *what).collect();
    stuck.extend(is_deaf.then_some("answers that are not read"));
    assert!(stuck.is_empty(), "not cut off: clients with {stuck:?}");
    soon("it answers when they are cut off", || {
        served.get("/v1/sample").0 == 200
    });
}

#[test]
fn sixty_four_threads_take_exactly_what_is_there() {
    const AMOUNT: Joules = Joules::from_smallest(73_001);
    let folder = TempDir::new().unwrap();
    let open = || Bucket::open(folder.path(), POLICY, Timestamp::now()).unwrap();
    let sums = |bucket: &Bucket| bucket.look(|l| (l.level(), l.reserved(), *l.accounts()));
    let bucket = open();
    let taken = AtomicI64::new(0);
    let takes = |name: &str| match bucket.take(&take(name, AMOUNT)) {
        Ok(_) => taken.fetch_add(1, Ordering::SeqCst) >= 0,
        Err(BucketError::Refused(Refusal::Short(_))) => false,
        Err(error) => panic!("{error}"),
    };
    let all = |thread| (0..).all(|count| takes(&format!("{thread}-{count}")));
    thread::scope(|scope| {
        (0..64).for_each(|thread| drop(scope.spawn(move || all(thread))));
    });
    let (level, reserved, accounts) = sums(&bucket);
    let fits = POLICY.opening_grant.smallest() / AMOUNT.smallest();
    assert_eq!(taken.into_inner(), fits);
    assert_eq!(reserved.smallest(), fits * AMOUNT.smallest());
    assert_eq!(level + reserved, accounts.granted);
    drop(bucket);
    assert_eq!(sums(&open()), (level, reserved, accounts));
}

#[test]
fn a_lease_that_ran_out_is_charged_in_full_and_a_restart_changes_no_answer() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    served.post("take", r#"{"joules":20,"id":"seen","ttl_s":1}"#);
    served.post("take", r#"{"joules":10,"id":"unseen","ttl_s":1}"#);
    thread::sleep(Duration::from_millis(1100));
    // Nobody has looked since it ran out, and still it is too late to settle.
    let (_, closed) = served.post("settle", r#"{"lease":"unseen","joules":1}"#);
    assert_eq!(closed["charged_j"], 10.0);
    let (_, taken) = served.post("take", r#"{"joules":1,"id":"next"}"#);
    assert_eq!(taken["remaining_j"], 69.0);
    let late = r#"{"lease":"seen","joules":1}"#;
    let (_, expired) = served.post("settle", late);
    assert_eq!(expired["charged_j"], 20.0);
    assert_eq!(
        served.agent.bucket().unwrap().accounts.forfeited,
        joules(30)
    );
    let open = r#"{"joules":30,"id":"open"}"#;
    let done = r#"{"joules":15,"id":"done"}"#;
    let settle = r#"{"lease":"done","joules":16.000001}"#;
    assert_eq!(served.post("take", open).0, 200);
    assert_eq!(served.post("take", done).0, 200);
    let (_, settled) = served.post("settle", settle);
    // Let something be measured under the lease that stays open.
    thread::sleep(Duration::from_millis(1500));
    let before = served.agent.bucket().unwrap();
    let progress = served.agent.progress(&"open".parse().unwrap());
    let measured = progress.unwrap().measured.net();
    assert!(measured > joules(5), "{measured}");
    served.stop();
    let served = Served::start(&folder);
    let after = served.agent.bucket().unwrap();
    assert_eq!((after.leases.len(), &after.leases), (2, &before.leases));
    assert_eq!(after.level_joules, before.level_joules);
    for (body, granted) in [(open, 30.0), (done, 15.0)] {
        let (status, taken) = served.post("take", body);
        assert_eq!((status, &taken["granted_j"]), (200, &json!(granted)));
        assert_eq!(taken["remaining_j"], 22.999999);
    }
    assert_eq!(served.post("settle", settle).1, settled);
    assert_eq!(served.post("settle", late).1["charged_j"], 20.0);
    // What was measured before is not forgotten, though the lease was asked for again.
    let (_, closed) = served.post("settle", r#"{"lease":"open"}"#);
    let charged = closed["charged_j"].as_f64().unwrap();
    assert!(charged >= measured.as_f64(), "{charged} J for {measured} J");
}

#[test]
fn the_description_has_the_fields_that_are_answered() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let (status, described) = served.get("/v1/openapi.json");
    assert_eq!(status, 200);
    let of_schema = |name: &str| -> BTreeSet<String> {
        let fields = &described["components"]["schemas"][name]["properties"];
        fields.as_object().unwrap().keys().cloned().collect()
    };
    let (_, sample) = served.get("/v1/sample");
    let answered: BTreeSet<String> = sample.as_object().unwrap().keys().cloned().collect();
    assert_eq!(answered, of_schema("Sample"));
    let (_, bucket) = served.get("/v1/bucket");
    let answered: BTreeSet<String> = bucket.as_object().unwrap().keys().cloned().collect();
    assert_eq!(answered, of_schema("BucketView"));
    for (path, operations) in described["paths"].as_object().unwrap() {
        let path = path.replace("{lease}", "none");
        for method in operations.as_object().unwrap().keys() {
            let what = format!("{} {path}", method.to_uppercase());
            if ["GET", "POST"].contains(&what.split(' ').next().unwrap()) {
                let (status, _) = ask(served.at, &what, JSON, "").unwrap();
                assert!(
                    status != 405 && (path == "/v1/leases/none" || status != 404),
                    "{what}"
                );
            }
        }
    }
}
