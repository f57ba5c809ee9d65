//! Lets the agent on the home node reach a real cluster's API server, to which its namespace has no route: a port on
//! the node's loopback address, and bytes both ways from there.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use exposer_testkit::netns::Handle;
use serde_json::Value;

/// Listens inside `home` and carries every connection to `server` (`host:port`), from the namespace of the demo. The
/// threads end with the process.
pub fn start(home: &Handle, server: String) -> Result<SocketAddr> {
    let listener = home.run(|| TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback"))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("relay".to_owned()).spawn(move || {
        for client in listener.incoming().flatten() {
            let server = server.clone();
            thread::spawn(move || carry(&client, &server));
        }
    })?;
    Ok(address)
}

fn carry(client: &TcpStream, server: &str) -> io::Result<()> {
    // A server that does not answer is seen by the agent as a closed connection, and said by it.
    let server = TcpStream::connect(server)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let (mut from, mut to) = (&server, client);
    let _ = io::copy(&mut from, &mut to);
    client.shutdown(Shutdown::Write)?;
    let _ = up.join();
    Ok(())
}

/// Points a kubeconfig (one cluster, everything inlined) to `relay`, and returns the `host:port` it pointed to.
pub fn redirect(kubeconfig: &mut Value, relay: impl FnOnce(String) -> Result<SocketAddr>) -> Result<()> {
    let cluster = kubeconfig
        .pointer_mut("/clusters/0/cluster")
        .and_then(Value::as_object_mut)
        .context("the kubeconfig names no cluster")?;
    let server = cluster
        .get("server")
        .and_then(Value::as_str)
        .context("the cluster has no server")?
        .to_owned();
    let (scheme, rest) = server
        .split_once("://")
        .context("the cluster's server is no URL")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let path = rest.strip_prefix(authority).unwrap_or_default();
    let default_port = if scheme == "http" { 80 } else { 443 };
    let (host, target) = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, authority.to_owned()),
        _ => (authority, format!("{authority}:{default_port}")),
    };
    let address = relay(target)?;
    // The certificate names the host that is no longer in the URL.
    let name = host.trim_matches(['[', ']']).to_owned();
    cluster.entry("tls-server-name").or_insert_with(|| name.into());
    cluster.insert("server".to_owned(), format!("{scheme}://{address}{path}").into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(server: &str) -> (String, Value) {
        let mut value = serde_json::json!({ "clusters": [{ "cluster": { "server": server } }] });
        let mut target = String::new();
        redirect(&mut value, |to| {
            target = to;
            Ok("127.0.0.1:7".parse()?)
        })
        .unwrap();
        (target, value.pointer("/clusters/0/cluster").cloned().unwrap())
    }

    #[test]
    fn a_kubeconfig_keeps_the_name_that_the_certificate_has() {
        let (target, cluster) = redirected("https://k8s.example:6443");
        assert_eq!(target, "k8s.example:6443");
        assert_eq!(cluster["server"], "https://127.0.0.1:7");
        assert_eq!(cluster["tls-server-name"], "k8s.example");
    }

    #[test]
    fn ports_and_paths_may_be_left_out_or_there() {
        assert_eq!(redirected("https://k8s.example/clusters/a").0, "k8s.example:443");
        assert_eq!(
            redirected("https://k8s.example/clusters/a").1["server"],
            "https://127.0.0.1:7/clusters/a"
        );
        assert_eq!(redirected("https://[2001:db8::1]:6443").0, "[2001:db8::1]:6443");
        assert_eq!(
            redirected("https://[2001:db8::1]:6443").1["tls-server-name"],
            "2001:db8::1"
        );
    }
}
