//! `exposer-agent parse`: what a port annotation means, from a shell.

use std::io::{self, Write};

use exposer_common::k8s::{PortSpec, PortsError, parse_ports};
use exposer_common::model::Protocol;

use crate::args::{Output, ParseArgs};

/// Prints what the annotation means.
///
/// # Errors
///
/// When the annotation is wrong; `Ok(Err)` where only the printing failed.
pub fn run(args: &ParseArgs, out: &mut impl Write) -> Result<io::Result<()>, PortsError> {
    let specs = parse_ports(&args.ports)?;
    Ok(match args.output {
        Output::Table => table(&specs, out),
        Output::Json => json(&specs, out),
    })
}

fn table(specs: &[PortSpec], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:<8}{:<11}SERVICE PORT", "PUBLIC", "PROTOCOLS")?;
    for PortSpec {
        public,
        service,
        protocols,
    } in specs
    {
        writeln!(out, "{public:<8}{:<11}{service}", protocols.to_string())?;
    }
    Ok(())
}

fn json(specs: &[PortSpec], out: &mut impl Write) -> io::Result<()> {
    let list: Vec<_> = specs
        .iter()
        .map(
            |PortSpec {
                 public,
                 service,
                 protocols,
             }| {
                serde_json::json!({
                    "public": public,
                    "service": service.to_string(),
                    "protocols": protocols.iter().map(Protocol::as_str).collect::<Vec<_>>(),
                })
            },
        )
        .collect();
    writeln!(out, "{}", serde_json::Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ports: &str, output: Output) -> String {
        let mut out = Vec::new();
        run(
            &ParseArgs {
                ports: ports.to_owned(),
                output,
            },
            &mut out,
        )
        .unwrap()
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn both_forms() {
        let ports = "25565/tcp+udp, 8080:http/tcp";
        assert_eq!(
            shown(ports, Output::Table),
            "PUBLIC  PROTOCOLS  SERVICE PORT\n25565   tcp+udp    25565\n8080    tcp        http\n"
        );
        let value: serde_json::Value = serde_json::from_str(&shown(ports, Output::Json)).unwrap();
        assert_eq!(value[0]["protocols"], serde_json::json!(["tcp", "udp"]));
        assert_eq!(value[1]["service"], "http");
    }
}
