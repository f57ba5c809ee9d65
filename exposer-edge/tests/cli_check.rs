//! `exposer-edge check` in real network namespaces: what is missing is said, with what to do, and told by exit status.
//! Needs root.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a failed expectation is a failed test"
)]

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use exposer_testkit::netns::Netns;
use serde_json::Value;
use tempfile::TempDir;

/// Runs a script of shell commands and then `check --output json` with `flags`, all in a new network namespace.
fn check(script: &str, flags: &str) -> (i32, Value) {
    check_in(&Netns::new("check", "edge").expect("a namespace"), script, flags)
}

/// As [`check`], while another program of the namespace, `sleep`, listens on `address` (TCP).
fn check_beside(address: &str, script: &str, flags: &str) -> (i32, Value) {
    let netns = Netns::new("check", "edge").expect("a namespace");
    let listener = netns.run(|| Ok(TcpListener::bind(address)?)).expect("it is free");
    let mut other = netns
        .command("sleep")
        .expect("coreutils")
        .arg("60")
        .stdin(OwnedFd::from(listener))
        .spawn()
        .expect("it starts");
    let told = check_in(&netns, script, flags);
    other.kill().expect("it still ran");
    other.wait().expect("it ended");
    told
}

fn check_in(netns: &Netns, script: &str, flags: &str) -> (i32, Value) {
    let line = format!(
        "set -e; {script}; exec {} check --output json {flags}",
        env!("CARGO_BIN_EXE_exposer-edge")
    );
    let output = netns
        .command("sh")
        .expect("a shell")
        .args(["-c", &line])
        .env_remove("EXPOSER_LISTEN_ADDR")
        .output()
        .expect("the shell starts");
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|parse| panic!("no JSON: {parse}: {output:?} {error}"));
    (output.status.code().expect("it was not killed"), report)
}

/// State, what was found, and what to do, of the row `name`.
fn row(report: &Value, name: &str) -> (String, String, String) {
    let rows = report["rows"].as_array().expect("there are rows");
    let found = rows.iter().find(|row| row["check"] == name);
    let row = found.unwrap_or_else(|| panic!("no row {name} in {report:#}"));
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("found"), text("remedy"))
}

/// A folder with a token of this mode, and the flags that use it.
fn files(mode: u32) -> (TempDir, String) {
    let folder = TempDir::new().expect("a folder for the test");
    let token = folder.path().join("token");
    std::fs::write(
        &token,
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
    )
    .expect("a token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("its mode");
    let flags = format!(
        "--token-file {} --state-dir {}",
        token.display(),
        folder.path().display()
    );
    (folder, flags)
}

const WAN: &str = "ip link add wan0 type veth peer name far0; ip addr add 203.0.113.7/24 dev wan0; \
    ip link set far0 up; ip link set wan0 up; ip route add default via 203.0.113.1";
const TUNNEL: &str = "ip tuntap add wg0 mode tun; ip link set wg0 mtu 1420; ip addr add 10.0.0.1/24 dev wg0; \
    ip link set wg0 up; ip route add 10.96.0.0/12 dev wg0";

#[test]
fn an_empty_machine_is_told_what_it_lacks() {
    let (code, report) = check("true", "--token-file /nonexistent/token --state-dir /tmp");
    assert_eq!((code, &report["works"]), (1, &Value::Bool(false)));
    for (name, state, remedy) in [
        ("public-interface", "fail", "EXPOSER_PUBLIC_INTERFACE"),
        ("public-address", "fail", "EXPOSER_PUBLIC_INTERFACE"),
        ("tunnel", "fail", "systemctl enable --now wg-quick@wg0"),
        ("listen-address", "warn", "EXPOSER_LISTEN_ADDR"),
        ("token-file", "fail", "openssl rand -hex 32"),
    ] {
        let (found_state, found, found_remedy) = row(&report, name);
        assert_eq!(found_state, state, "{name}: {found}");
        assert!(found_remedy.contains(remedy), "{name}: {found_remedy}");
    }
}

#[test]
fn a_machine_with_both_interfaces_works() {
    let (_folder, flags) = files(0o600);
    let (code, report) = check(
        &format!("{WAN}; {TUNNEL}"),
        &format!("{flags} --datapath userspace"),
    );
    assert_eq!((code, &report["works"]), (0, &Value::Bool(true)), "{report:#}");
    for (name, found) in [
        ("public-interface", "wan0"),
        ("public-address", "203.0.113.7"),
        ("tunnel", "10.0.0.1/24"),
        ("home-prefixes", "10.96.0.0/12"),
        ("mtu", "wan0 1500, wg0 1420"),
        ("listen-address", "10.0.0.1:9090"),
        ("token-file", "mode 0600"),
        ("state-dir", "is writable"),
        ("map-memory", "bytes"),
    ] {
        let (state, text, _) = row(&report, name);
        assert_eq!(state, "ok", "{name}: {text}");
        assert!(text.contains(found), "{name}: {text}");
    }
}

#[test]
fn a_token_that_others_may_read_is_a_warning() {
    let (_folder, flags) = files(0o644);
    let (_, report) = check("true", &flags);
    let (state, found, remedy) = row(&report, "token-file");
    assert_eq!(state, "warn", "{found}");
    assert!(remedy.starts_with("chmod 600 "), "{remedy}");
}

#[test]
fn the_kernel_path_is_judged_by_the_setting() {
    let bpffs = Path::new("/tmp").join(format!("exposer-check-{}", std::process::id()));
    let flags = |datapath: &str| format!("--bpffs {} --datapath {datapath}", bpffs.display());
    for (datapath, expected) in [("auto", "warn"), ("kernel", "fail"), ("userspace", "ok")] {
        let (_, report) = check("true", &flags(datapath));
        let (state, found, _) = row(&report, "bpffs");
        assert_eq!(state, expected, "{datapath}: {found}");
    }
}

#[test]
fn a_firewall_in_the_way_is_named_with_the_command_that_mends_it() {
    let (_folder, flags) = files(0o600);
    let rules = "nft add table inet guard; \
        nft add chain inet guard input '{ type filter hook input priority 0; policy drop; }'; \
        nft add rule inet guard input ct state established accept; \
        nft add rule inet guard input udp dport 30000 accept";
    let (code, report) = check(
        &format!("{WAN}; {TUNNEL}; {rules}"),
        &format!("{flags} --datapath userspace"),
    );
    let (state, found, remedy) = row(&report, "firewall");
    assert_eq!(state, "warn", "{found}");
    assert!(
        found.contains("30000/tcp is blocked by table inet guard, chain input: policy drop"),
        "{found}"
    );
    assert!(!found.contains("30000/udp"), "{found}");
    assert!(
        remedy.contains("nft insert rule inet guard input tcp dport 30000 accept"),
        "{remedy}"
    );
    let (state, found, _) = row(&report, "firewall-control");
    assert_eq!(
        (state.as_str(), code),
        ("fail", 1),
        "agents can't come in: {found}"
    );
}

#[test]
fn ports_of_docker_and_of_other_programs_are_reserved() {
    let rules = "nft add table ip nat; nft add chain ip nat prerouting '{ type nat hook prerouting priority -100; }'; \
        nft add rule ip nat prerouting tcp dport 8080 dnat to 172.17.0.2:80";
    let (_, report) = check_beside("0.0.0.0:8081", rules, "");
    let (_, found, _) = row(&report, "reserved-ports");
    assert!(
        found.contains("8080/tcp sent elsewhere by a nat rule of this host (table ip nat"),
        "{found}"
    );
    assert!(found.contains("8081/tcp in use by sleep"), "{found}");
}

#[test]
fn an_address_that_another_program_has_is_a_failure() {
    let (code, report) = check_beside("127.0.0.1:9091", "true", "");
    let (state, found, remedy) = row(&report, "admin-address");
    assert_eq!((state.as_str(), code), ("fail", 1), "{found}");
    assert!(
        found.contains("sleep") && remedy.contains("EXPOSER_ADMIN_ADDR"),
        "{found}; {remedy}"
    );
}

#[test]
fn a_snat_range_over_local_ports_is_refused() {
    let (_, report) = check("echo 1024 65000 > /proc/sys/net/ipv4/ip_local_port_range", "");
    let (state, found, remedy) = row(&report, "snat-range");
    assert_eq!(state, "fail", "{found}");
    assert!(
        remedy.contains("EXPOSER_SNAT_RANGE") && remedy.contains("sysctl"),
        "{remedy}"
    );
}
