//! An agent that hears nothing for a while in the middle of a run: what was measured is on record
//! all the same, and charged once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::lab::Lab;

/// Which requests are lost, from one on until another.
#[derive(Clone, Copy)]
struct Deaf {
    from: &'static str,
    to: &'static str,
    until: &'static str,
}

/// A way to an agent on which requests are lost.
struct Bridge {
    at: SocketAddr,
    has_lost: Arc<AtomicBool>,
}

impl Bridge {
    fn to(agent: SocketAddr, deaf: Deaf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (is_deaf, has_lost) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let lost = Arc::clone(&has_lost);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (is_deaf, lost) = (Arc::clone(&is_deaf), Arc::clone(&lost));
                let client = client.unwrap();
                thread::spawn(move || carry(client, agent, deaf, (&is_deaf, &lost)));
            }
        });
        Self { at, has_lost }
    }
}

/// Carries requests and answers, a request at a time, and hangs up at those that are lost.
fn carry(
    mut client: TcpStream,
    agent: SocketAddr,
    deaf: Deaf,
    (is_deaf, has_lost): (&AtomicBool, &AtomicBool),
) {
    let mut server = TcpStream::connect(agent).unwrap();
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if heard.starts_with(deaf.until) {
            is_deaf.store(false, Ordering::SeqCst);
        }
        if is_deaf.load(Ordering::SeqCst) && heard.starts_with(deaf.to) {
            has_lost.store(true, Ordering::SeqCst);
            break;
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
        if heard.starts_with(deaf.from) {
            is_deaf.store(true, Ordering::SeqCst);
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

/// `cryo agent` of another project.
struct Agent {
    child: Child,
    at: SocketAddr,
}

impl Agent {
    fn start(lab: &Lab) -> Self {
        let mut child = lab.start(&["agent", "--listen", "127.0.0.1:0"]);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listens at http://")?.1.to_owned()));
        let at = url.expect("the agent listens").parse().unwrap();
        Self { child, at }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Level and open leases of the agent's bucket.
fn charged(server: &Lab) -> f64 {
    1e6 - server.holds()
}

#[test]
fn a_bucket_that_does_not_tell_its_level_costs_no_receipt() {
    let (lab, server) = (Lab::new(), Lab::new());
    let agent = Agent::start(&server);
    let deaf = Deaf {
        from: "POST /v1/close",
        to: "GET /v1/bucket",
        until: "POST /v1/settle",
    };
    let bridge = Bridge::to(agent.at, deaf);
    let url = format!("http://{}", bridge.at);
    let index = ["apply", "p.toml", "--task", "index"];
    lab.cryo_with(&index, &[("CRYO_AGENT_URL", &url)]).expect(0);
    assert!(
        bridge.has_lost.load(Ordering::SeqCst),
        "no request was lost"
    );
    let receipt = &lab.history()[0];
    assert_eq!(receipt["kind"], "decision");
    assert!(
        receipt["energy"].get("bucket_joules").is_none(),
        "{receipt:#}"
    );
    let spent: f64 = receipt["joules_spent"].as_str().unwrap().parse().unwrap();
    assert!((charged(&server) - spent).abs() < 1e-6);
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn a_run_whose_meter_does_not_start_is_put_on_record_by_the_next() {
    let (lab, server) = (Lab::new(), Lab::new());
    let agent = Agent::start(&server);
    let deaf = Deaf {
        from: "POST /v1/take",
        to: "GET /v1/leases/",
        until: "POST /v1/abandon",
    };
    let bridge = Bridge::to(agent.at, deaf);
    let url = format!("http://{}", bridge.at);
    let env = [("CRYO_AGENT_URL", url.as_str())];
    let index = ["apply", "p.toml", "--task", "index"];
    lab.cryo_with(&index, &env).expect(1);
    assert!(
        bridge.has_lost.load(Ordering::SeqCst),
        "no request was lost"
    );
    // The next run goes straight to the agent.
    let url = format!("http://{}", agent.at);
    lab.cryo_with(&index, &[("CRYO_AGENT_URL", &url)]).expect(0);
    let receipts = lab.history();
    let kinds: Vec<_> = receipts.iter().map(|receipt| &receipt["kind"]).collect();
    assert_eq!(kinds, ["aborted", "decision"]);
    let joules = |receipt: &serde_json::Value, member: &str| -> f64 {
        receipt[member]
            .as_str()
            .map_or(0.0, |text| text.parse().unwrap())
    };
    let all: f64 = receipts
        .iter()
        .map(|receipt| joules(receipt, "joules_spent") + joules(receipt, "joules_forfeited"))
        .sum();
    assert!(
        (charged(&server) - all).abs() < 1e-6,
        "{} {all}",
        charged(&server)
    );
    assert!(
        all < 4000.0,
        "a lease under which nothing ran is not charged in full"
    );
    lab.cryo(&["verify"]).expect(0);
}

#[test]
fn what_a_task_came_to_is_told_though_the_run_ends_in_an_error() {
    let (lab, server) = (Lab::new(), Lab::new());
    let agent = Agent::start(&server);
    let deaf = Deaf {
        from: "POST /v1/settle",
        to: "POST /v1/take",
        until: "nothing",
    };
    let bridge = Bridge::to(agent.at, deaf);
    let url = format!("http://{}", bridge.at);
    let args = ["apply", "p.toml", "--json"];
    let ended = lab
        .cryo_with(&args, &[("CRYO_AGENT_URL", &url)])
        .expect(1)
        .json();
    assert_eq!(ended["status"], "error");
    assert!(ended["error"].is_string());
    assert_eq!(ended["tasks"][0]["task"], "index");
    assert_eq!(ended["tasks"][0]["receipt"]["kind"], "decision");
    assert_eq!(ended["tasks"].as_array().unwrap().len(), 1);
}
