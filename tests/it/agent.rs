//! The agent over real sockets: its answers, bad input, slow clients, and the trait from both sides.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryoflux::clock::Timestamp;
use cryoflux::energy::agent::client::AgentUrl;
use cryoflux::energy::agent::server::{Listen, ListenError, Token, read_token, serve};
use cryoflux::energy::agent::{
    AgentError, AgentSettings, JouleAgent, LocalAgent, Relearn, RemoteAgent, Status,
};
use cryoflux::energy::probes::sim::{Sensor, Simulated, Trace};
use cryoflux::energy::{
    Affordable, Baseline, Bucket, BucketError, BucketPolicy, Clock, Discovery, IdleState, Inflow,
    LeaseId, Probe, Refusal, SystemClock, Take,
};
use cryoflux::units::{Joules, Watts};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

type Answer = (u16, Value);

const JSON: &str = "Content-Type: application/json\r\n";
const POLICY: BucketPolicy = BucketPolicy {
    cap: Joules::from_smallest(120_000_000),
    allowance: Watts(0.0),
    opening_grant: Joules::from_smallest(100_000_000),
};

fn joules(whole: i64) -> Joules {
    Joules::from_smallest(whole * 1_000_000)
}

fn id(text: &str) -> LeaseId {
    text.parse().unwrap()
}

fn take(name: &str, joules: Joules) -> Take {
    Take {
        id: id(name),
        joules,
        purpose: "a test".into(),
        ttl: Duration::from_secs(600),
    }
}

/// A board of 25 W whose baseline is 10 W, and a bucket of 100 J that nothing but grants fills.
fn local_agent(folder: &Path) -> LocalAgent {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let trace = Arc::new(Trace::new([(1.0, 25.0)]));
    let board = Simulated::new(trace, Sensor::COUNTER, Arc::clone(&clock));
    let (none, learned) = (BTreeMap::new(), Timestamp::from_millis(0));
    let infos = [board.info().clone()];
    let idle = Baseline::configured(&infos, Watts(10.0), IdleState::Bare, none, learned);
    let baselines = folder.join("baselines");
    idle.freeze(&baselines).unwrap();
    let bucket = Bucket::open(&folder.join("bucket"), POLICY, Timestamp::now()).unwrap();
    let discovery = Discovery {
        probes: vec![Box::new(board)],
        ..Discovery::default()
    };
    let settings = AgentSettings {
        hz: 10.0,
        inflow: Inflow::Off,
        baselines,
        baseline_time: Duration::from_secs(2),
        idle_learn: None,
        idle: None,
    };
    LocalAgent::start(discovery, bucket, clock, settings).unwrap()
}

/// An agent that listens, on a thread of the test.
struct Served {
    agent: Arc<LocalAgent>,
    listen: Listen,
    at: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(folder: &TempDir) -> Self {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        Self::with(folder.path(), &listen, None)
    }

    fn with(folder: &Path, listen: &Listen, token: Option<Token>) -> Self {
        let agent = Arc::new(local_agent(folder));
        let (stop, stopped) = watch::channel(false);
        let (ready, readied) = mpsc::channel();
        let thread = thread::spawn({
            let (agent, listen) = (Arc::clone(&agent), listen.clone());
            let say = move |at: &Listen| ready.send(at.clone()).unwrap();
            move || serve(agent, &listen, token, stopped, say).unwrap()
        });
        let listen = readied.recv_timeout(Duration::from_secs(10)).unwrap();
        let port = match &listen {
            Listen::Tcp(at) => at.port(),
            Listen::Unix(_) => 0,
        };
        Self {
            agent,
            listen,
            at: ([127, 0, 0, 1], port).into(),
            stop,
            thread: Some(thread),
        }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.at, &format!("GET {path}"), "", "").unwrap()
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        ask(self.at, &format!("POST /v1/{path}"), JSON, body).unwrap()
    }

    /// What the bucket holds, and the same with what is set aside.
    fn levels(&self) -> (Joules, Joules) {
        let bucket = self.agent.bucket_itself();
        bucket.look(|ledger| (ledger.level(), ledger.level() + ledger.reserved()))
    }

    fn answers(&self) -> bool {
        ask(self.at, "GET /v1/sample", "", "").is_ok_and(|(status, _)| status == 200)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Waits until something is so.
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        let is_early = start.elapsed() < Duration::from_secs(5);
        assert!(is_early, "not so after five seconds: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream
}

/// Sends any bytes and reads the answer until the agent hangs up.
fn talk(at: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(at);
    // The agent may answer and hang up before it has read everything.
    let sent = stream.write_all(request);
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        sent.and(received)?;
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {text:?}")))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Method and path, more headers, and the body.
fn ask(at: SocketAddr, what: &str, headers: &str, body: impl AsRef<[u8]>) -> io::Result<Answer> {
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
    thread::sleep(Duration::from_millis(500));
    let (status, sample) = served.get("/v1/sample");
    assert_eq!(status, 200);
    for (field, least, most) in [
        ("ts", 1.7e9, 1e10),
        ("gpu_w", 20.0, 30.0),
        ("idle_gpu_w", 10.0, 10.0),
        ("bucket_j", 100.0, 100.0),
    ] {
        let number = sample[field].as_f64().unwrap_or(f64::NAN);
        assert!((least..=most).contains(&number), "{field} in {sample}");
    }
    // There is no processor's probe, and null says so.
    assert!(sample["cpu_w"].is_null() && sample["idle_cpu_w"].is_null());
    for path in "about bucket baseline openapi.json".split(' ') {
        let (status, page) = served.get(&format!("/v1/{path}"));
        assert!(status == 200 && page.is_object(), "{path}: {page}");
    }
    assert_eq!(served.get("/metrics").0, 200);

    let (status, taken) = served.post("take", r#"{"joules":40.25}"#);
    assert_eq!((status, &taken["ok"]), (200, &json!(true)));
    assert_eq!(taken["remaining_j"], 59.75);
    let (status, short) = served.post("take", r#"{"joules":60,"id":"much"}"#);
    assert_eq!((status, &short["ok"]), (409, &json!(false)));
    assert!(
        short["error"].is_string() && short["short_j"] == 0.25,
        "{short}"
    );
    assert_eq!(served.levels().0, Joules::from_smallest(59_750_000));
    let (status, all) = served.post("take", r#"{"joules":"59.75","id":"much"}"#);
    assert_eq!((status, &all["remaining_j"]), (200, &json!(0.0)), "{all}");
}

/// What every agent does, wherever it runs. It starts with 100 of 120 J.
fn any_agent(agent: &dyn JouleAgent) {
    let level = || agent.bucket().unwrap().level_joules;
    let take = |name: &str, whole| agent.take(&take(name, joules(whole)));
    let settle = |id: &LeaseId, whole| agent.settle(id, Some(joules(whole)));
    let (a, b, c, none) = (id("a"), id("b"), id("c"), id("none"));
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
    for (whole, affordable) in [
        (100, Affordable::NeverWithoutGrant),
        (1000, Affordable::AboveCap(POLICY.cap)),
    ] {
        let refused = take("short", whole);
        let Err(AgentError::Refused(Refusal::Short(short))) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(short.missing, joules(whole - 90));
        assert_eq!(short.affordable, affordable);
    }
    assert_eq!(level(), joules(90));

    let progress = || agent.progress(&a).unwrap();
    let long = Duration::from_millis(400);
    soon("it is measured", || progress().measured.time >= long);
    let progress = progress();
    let watts = progress.measured.net().per(progress.measured.time).0;
    assert!((10.0..20.0).contains(&watts), "{progress:?}");
    assert!(progress.net_now() >= progress.measured.net());
    let measured = agent.close(&a).unwrap();
    assert!(measured.time >= progress.measured.time);
    assert_eq!(agent.close(&a).unwrap(), measured);
    // Settled at what was measured, once.
    let closed = agent.settle(&a, None).unwrap();
    assert_eq!(closed.charged, measured.net());
    assert_eq!(level(), joules(120) - measured.net());
    assert_eq!(settle(&a, 99).unwrap(), closed);
    assert_eq!(agent.forfeit(&a).unwrap(), closed);
    assert_eq!(take("a", 30).unwrap().level, level());
    // A value that is stated counts when it is more; what is forfeited is charged in full.
    take("b", 20).unwrap();
    assert_eq!(settle(&b, 21).unwrap().charged, joules(21));
    take("c", 15).unwrap();
    assert_eq!(agent.forfeit(&c).unwrap().charged, joules(15));
    assert_eq!(settle(&c, 1).unwrap().charged, joules(15));

    assert!(agent.progress(&none).is_err() && agent.close(&none).is_err());
    for result in [settle(&none, 1), agent.forfeit(&none)] {
        let is_none = matches!(result, Err(AgentError::Refused(Refusal::NoLease(_))));
        assert!(is_none, "{result:?}");
    }
    agent.stir(Duration::from_secs(1)).unwrap();
    let view = agent.bucket().unwrap();
    let sums = view.accounts;
    assert!(view.leases.is_empty() && view.reserved_joules == Joules::ZERO);
    let rest = sums.granted + sums.credited - sums.charged - sums.forfeited;
    assert_eq!(view.level_joules, rest);
}

#[test]
fn who_uses_an_agent_cannot_tell_where_it_runs() {
    let folders = [(); 3].map(|()| TempDir::new().unwrap());
    any_agent(&local_agent(folders[0].path()));
    let tcp = Served::start(&folders[1]);
    let url = tcp.listen.to_string().parse().unwrap();
    any_agent(&RemoteAgent::connect(url, None).unwrap());
    let socket = folders[2].path().join("agent.sock");
    let unix = Served::with(folders[2].path(), &Listen::Unix(socket.clone()), None);
    let url: AgentUrl = unix.listen.to_string().parse().unwrap();
    any_agent(&RemoteAgent::connect(url.clone(), None).unwrap());
    drop(unix);
    assert!(!socket.exists(), "the socket is removed");
    let gone = RemoteAgent::connect(url, None).err().unwrap();
    let is_clear = matches!(gone, AgentError::Unreachable { .. }) && gone.hint().is_some();
    assert!(is_clear, "{gone}");
}

/// Status and path, then bodies with two spaces before each.
const BAD_BODIES: &str = r#"
400 take  {"jules":1}  {"joules":1,"more":1}  {"joules":1,"joules":1}  {"joules":1,"purpose":1}
400 take  {"joules":1,"id":""}  {"joules":1,"id":"a b"}  {"joules":1,"id":"../a"}  [5]
400 take  {"joules":1,"id":"ä"}  {"joules":1,"id":"a\nb"}  {"joules":1,"id":5}
400 take  {"joules":1,"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}
400 take  {"joules":1,"ttl_s":0}  {"joules":1,"ttl_s":0.5}  {"joules":1,"ttl_s":-1}
400 take  {"joules":1,"ttl_s":1e300}  {"joules":1,"ttl_s":604801}  {"joules":1,"ttl_s":"60"}
409 take  {"joules":2,"id":"open"}
400 settle  {"lease":"a b"}  {"lease":"open","more":1}  {"lease":"open","joules":-1}  ["open"]
400 settle  {"lease":"open","joules":NaN}  {"lease":"open","joules":1e300}  {"lease":5}
404 settle  {"lease":"unknown"}  {"lease":"unknown","joules":1}
400 close  {"lease":"a b"}  {"lease":"open","more":1}
404 close  {"lease":"unknown"}
400 forfeit  {"lease":"a b"}  {"lease":"open","more":1}
404 forfeit  {"lease":"unknown"}
400 stir  {"seconds":-1}  {"seconds":3601}  {"seconds":1e300}  {"seconds":"1"}  [1]
400 grant  [5]  {"joules":5,"more":1}
400 baseline  {"state":"asleep","anew":false}  {"state":"bare"}
"#;
const BAD_AMOUNTS: &str = r#"NaN Infinity -Infinity 0 -5 -0.000001 1e300 1e-7 0.0000001 "1e2" ""
    "+5" "NaN" 99999999999999999999 null true [1] {}"#;
const BAD_PLACES: &str = "404 GET / 404 GET /v1/samples 404 GET /v1/leases/unknown
    400 GET /v1/leases/a%20b 400 GET /v1/leases/%ff 405 GET /v1/take 405 DELETE /v1/sample
    405 PUT /v1/grant";
const BAD_TYPES: &str = "text/plain application/x-www-form-urlencoded application/jsonp";
const FOREIGN: &str = "evil.example localhost.evil.example:8787 127.0.0.1.evil.example";
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
            let request = format!("{what} {headers:?} {body:.80}");
            let level = format!("same level: {is_same}");
            wrong.push(format!("{request}: {got} for {status}, {level}, {said}"));
        }
    };
    for amount in BAD_AMOUNTS.split_whitespace() {
        let body = format!("{{\"joules\":{amount}}}");
        check("400", "POST /v1/take", JSON, &body);
        check("400", "POST /v1/grant", JSON, &body);
    }
    for body in ["", " ", "{", "null", "7", "\"\"", "[]", "{}", "{}{}", "\0"] {
        for path in ["take", "settle", "close", "forfeit", "grant", "stir"] {
            check("400", &format!("POST /v1/{path}"), JSON, body);
        }
    }
    for line in BAD_BODIES.trim().lines() {
        let (status, rest) = line.split_once(' ').unwrap();
        let mut words = rest.split("  ");
        let what = format!("POST /v1/{}", words.next().unwrap());
        words.for_each(|body| check(status, &what, JSON, body));
    }
    let places: Vec<&str> = BAD_PLACES.split_whitespace().collect();
    for place in places.chunks(3) {
        check(place[0], &place[1..].join(" "), "", "");
    }
    let five = r#"{"joules":5}"#;
    check("415", "POST /v1/take", "", five);
    for kind in BAD_TYPES.split(' ') {
        let header = format!("Content-Type: {kind}\r\n");
        check("415", "POST /v1/take", &header, five);
    }
    for host in FOREIGN.split(' ') {
        let headers = format!("Host: {host}\r\n{JSON}");
        check("403", "POST /v1/take", &headers, five);
    }
    let wordy = format!("{{\"joules\":1,\"purpose\":\"{}\"}}", "x".repeat(201));
    check("400", "POST /v1/take", JSON, &wordy);
    check("413", "POST /v1/take", JSON, &"x".repeat(20_000));
    for host in OWN.split(' ') {
        let answer = ask(at, "GET /v1/sample", &format!("Host: {host}\r\n"), "");
        if !answer.is_ok_and(|(status, _)| status == 200) {
            wrong.push(format!("Host: {host} is refused"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Ten megabytes, with their length and in one chunk: an answer, or a closed connection.
    let huge = "x".repeat(10 << 20);
    let start = "POST /v1/take HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked";
    let chunked = format!("{start}\r\n{JSON}\r\n{:x}\r\n{huge}", huge.len());
    let header = format!("GET / HTTP/1.1\r\nX: {huge}");
    let before = served.levels();
    for answer in [
        ask(at, "POST /v1/take", JSON, &huge),
        talk(at, chunked.as_bytes()),
        talk(at, header.as_bytes()),
        talk(at, b"JUNK\r\n\r\n"),
        talk(at, &[0xff; 64]),
    ] {
        assert!(answer.is_err() || answer.is_ok_and(|(status, _)| (400..500).contains(&status)));
    }
    assert!(served.answers());
    assert_eq!(served.levels(), before);
}

#[test]
fn no_body_whatsoever_breaks_the_agent_or_fills_the_bucket() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    for name in ["a", "b", "c"] {
        served.post("take", &format!(r#"{{"joules":5,"id":"{name}"}}"#));
    }
    let bytes = || prop::collection::vec(any::<u8>(), 0..120);
    let like_json = || "[{}\\[\\]\":,.0-9a-z -]{4,60}".prop_map(String::into_bytes);
    let paths: Vec<&str> = "take settle close forfeit grant stir baseline"
        .split(' ')
        .collect();
    let path = prop::sample::select(paths);
    // Good bodies with one byte changed, which many of them survive.
    let good = r#"take {"joules":1.5,"id":"a","ttl_s":60} take {"joules":"0.25","purpose":"x"}
        settle {"lease":"a","joules":2.5} close {"lease":"b"} forfeit {"lease":"c"}
        stir {"seconds":1.5}"#;
    let good: Vec<&str> = good.split_whitespace().collect();
    let good: Vec<_> = good.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let place = (any::<prop::sample::Index>(), any::<u8>());
    let bent = (prop::sample::select(good), place).prop_map(|((path, body), (at, byte))| {
        let mut body = body.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        (path, body)
    });
    let requests = prop_oneof![(path.clone(), bytes()), (path, like_json()), bent];
    let held = Cell::new(served.levels().1);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(400)
    });
    let send = |(path, body): (&str, Vec<u8>)| {
        let answer = ask(served.at, &format!("POST /v1/{path}"), JSON, &body);
        let (status, _) = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(status < 500 || status == 503, "{}", status);
        let now = served.levels().1;
        prop_assert!(now <= held.replace(now), "{} J", now);
        Ok(())
    };
    runner.run(&requests, send).unwrap();
    assert!(served.answers());
}

#[cfg(unix)]
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
    for bad in ["short", "0123456789abcdef 0123456789abcdef", ""] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(read_token(&path), Err(ListenError::NoToken(_))));
    }

    // At an address that others reach.
    let public = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let agent = Arc::new(local_agent(&folder.path().join("unserved")));
    let (_stop, stopped) = watch::channel(false);
    let refused = serve(agent, &public, None, stopped, |_| panic!("it listens"));
    assert!(matches!(refused, Err(ListenError::Public(_))));
    let served = Served::with(folder.path(), &public, Some(Token::new(&token)));
    let post = |path: &str, shown: &str| {
        let headers = format!("{JSON}{}\r\n", shown.replace("TOKEN", &token));
        let what = format!("POST /v1/{path}");
        ask(served.at, &what, &headers, r#"{"joules":1}"#).unwrap()
    };
    let before = served.levels();
    for shown in [
        "X: TOKEN",
        "Authorization: TOKEN",
        "Authorization: Basic TOKEN",
    ] {
        assert_eq!(post("take", shown).0, 401, "{shown}");
    }
    for shown in [
        "Bearer wrong",
        "Bearer ",
        "Bearer TOKENx",
        "Bearer TOKEN TOKEN",
    ] {
        let (status, said) = post("take", &format!("Authorization: {shown}"));
        assert!(
            status == 401 && said["error"].is_string(),
            "{shown}: {said}"
        );
    }
    for path in ["settle", "close", "forfeit", "grant", "stir", "baseline"] {
        assert_eq!(served.post(path, "{}").0, 401, "{path}");
    }
    assert_eq!(served.levels(), before);
    assert_eq!(post("take", "Authorization: Bearer TOKEN").0, 200);
    for path in ["/v1/sample", "/v1/about", "/v1/bucket", "/metrics"] {
        assert_eq!(served.get(path).0, 200, "{path}");
    }
    let url: AgentUrl = format!("http://{}", served.at).parse().unwrap();
    let stranger = RemoteAgent::connect(url.clone(), None).unwrap();
    let said = stranger.grant(joules(1)).unwrap_err().to_string();
    assert!(said.contains("token"), "{said}");
    let friend = RemoteAgent::connect(url, Some(token)).unwrap();
    assert_eq!(friend.grant(joules(1)).unwrap(), joules(1));
}

fn own_number(file: &str, line: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let rest = text.lines().find_map(|all| all.strip_prefix(line)).unwrap();
    let words = rest.split_whitespace();
    words.flat_map(str::parse).next().unwrap()
}

/// In a process of its own, so that memory and file handles are all its own.
#[cfg(target_os = "linux")]
#[test]
fn slow_clients_do_not_stop_the_agent() {
    const ALONE: &str = "CRYO_TEST_ALONE";
    const RAISED: &str = "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" --exact --nocapture \"$1\"";
    if std::env::var_os(ALONE).is_none() {
        let module = module_path!().split_once("::").unwrap().1;
        let child = Command::new("sh")
            .args(["-c", RAISED])
            .arg(std::env::current_exe().unwrap())
            .arg(format!("{module}::slow_clients_do_not_stop_the_agent"))
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = [child.stdout, child.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        let is_good = child.status.success() && said[0].contains("1 passed");
        assert!(is_good, "{}\n{}", said[0], said[1]);
        return;
    }
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let memory = || own_number("/proc/self/status", "VmRSS:");
    // The agent holds 256 of them, and its own files.
    let handles = own_number("/proc/self/limits", "Max open files");
    let count = handles.saturating_sub(256 + 100).min(2000);
    assert!(count > 256, "only {handles} file handles");
    let kib = memory();
    let idle: Vec<TcpStream> = (0..count).map(|_| connect(served.at)).collect();
    for _ in 0..100 {
        let start = Instant::now();
        let (status, _) = ask(served.at, "GET /v1/sample", "", "").unwrap();
        assert_eq!(status, 503);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    let grown = memory().saturating_sub(kib);
    println!("{count} idle connections: {grown} KiB more");
    assert!(grown < 32 * 1024, "{grown} KiB");
    drop(idle);
    soon("it answers when they are gone", || served.answers());

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
    soon("all places are taken", || !served.answers());
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
    soon("it answers when they are cut off", || served.answers());
}

#[test]
fn a_lease_that_ran_out_is_charged_in_full() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    served.post("take", r#"{"joules":30,"id":"seen","ttl_s":1}"#);
    served.post("take", r#"{"joules":20,"id":"unseen","ttl_s":1}"#);
    thread::sleep(Duration::from_millis(1100));
    // Nobody has looked since it ran out, and still it is too late to settle.
    let (_, closed) = served.post("settle", r#"{"lease":"unseen","joules":1}"#);
    assert_eq!(closed["charged_j"], 20.0);
    let (_, taken) = served.post("take", r#"{"joules":1,"id":"next"}"#);
    assert_eq!(taken["remaining_j"], 49.0);
    let (status, closed) = served.post("settle", r#"{"lease":"seen","joules":1}"#);
    assert_eq!((status, &closed["charged_j"]), (200, &json!(30.0)));
    let view = served.agent.bucket().unwrap();
    assert_eq!(view.accounts.forfeited, joules(50));
    assert_eq!((view.level_joules, view.leases.len()), (joules(49), 1));
}

#[test]
fn sixty_four_threads_take_exactly_what_is_there() {
    const AMOUNT: Joules = Joules::from_smallest(73_001);
    let folder = TempDir::new().unwrap();
    let open = || Bucket::open(folder.path(), POLICY, Timestamp::now()).unwrap();
    let sums = |bucket: &Bucket| bucket.look(|l| (l.level(), l.reserved(), *l.accounts()));
    let bucket = open();
    let takes =
        |thread: u32, count: &u32| match bucket.take(&take(&format!("{thread}-{count}"), AMOUNT)) {
            Ok(taken) => taken.level >= Joules::ZERO,
            Err(BucketError::Refused(Refusal::Short(_))) => false,
            Err(error) => panic!("{error}"),
        };
    let taken: usize = thread::scope(|scope| {
        let all = |thread| (0..).take_while(|count| takes(thread, count)).count();
        let threads: Vec<_> = (0..64).map(|t| scope.spawn(move || all(t))).collect();
        let taken = threads.into_iter().map(|thread| thread.join().unwrap());
        taken.sum()
    });
    let (level, reserved, accounts) = sums(&bucket);
    assert_eq!(
        taken as i64,
        POLICY.opening_grant.smallest() / AMOUNT.smallest()
    );
    assert_eq!(reserved.smallest(), taken as i64 * AMOUNT.smallest());
    assert_eq!(level + reserved, accounts.granted);
    drop(bucket);
    assert_eq!(sums(&open()), (level, reserved, accounts));
}

#[test]
fn a_restart_changes_no_answer() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder);
    let open = r#"{"joules":30,"id":"open","purpose":"goes on"}"#;
    let done = r#"{"joules":20,"id":"done"}"#;
    let settle = r#"{"lease":"done","joules":21.000001}"#;
    served.post("take", open);
    served.post("take", done);
    let (_, settled) = served.post("settle", settle);
    assert_eq!(settled["charged_j"], 21.000001);
    // Let something be measured under the lease that stays open.
    thread::sleep(Duration::from_millis(1500));
    let before = served.agent.bucket().unwrap();
    let measured = served.agent.progress(&id("open")).unwrap().measured.net();
    assert!(measured > joules(5), "{measured}");
    drop(served);

    let served = Served::start(&folder);
    let after = served.agent.bucket().unwrap();
    assert_eq!(after.level_joules, before.level_joules);
    assert_eq!((after.leases.len(), &after.leases), (1, &before.leases));
    assert_eq!(after.accounts.charged, before.accounts.charged);
    for (body, granted) in [(open, 30.0), (done, 20.0)] {
        let (status, taken) = served.post("take", body);
        assert_eq!((status, &taken["granted_j"]), (200, &json!(granted)));
        assert_eq!(taken["remaining_j"], 48.999999);
    }
    assert_eq!(served.post("settle", settle).1, settled);
    // What was measured before is not forgotten, though the lease was asked for again.
    let (_, closed) = served.post("settle", r#"{"lease":"open"}"#);
    let charged = closed["charged_j"].as_f64().unwrap();
    assert!(charged >= measured.as_f64(), "{charged} J for {measured} J");
}
