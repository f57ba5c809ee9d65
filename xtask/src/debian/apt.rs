//! apt with private state: lists, cache and configuration below our own folder, nothing of the system's is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::control::{Package, parse_show};
use crate::command::{Cmd, note};
use crate::files::{find_program, write_if_changed};

/// The machine's apt sources and keys, over a folder of our own.
pub struct Apt {
    conf: PathBuf,
}

impl Apt {
    /// Prepares the folder and fetches the archive's present lists into it.
    ///
    /// # Errors
    ///
    /// When this is no Debian-like machine, or the archive can't be reached.
    pub fn open(dir: &Path) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "apt-config", "dpkg", "dpkg-query"] {
            if find_program(program).is_none() {
                bail!("`{program}` is not on this machine: it is not Debian, so its packages can't be used");
            }
        }
        for sub in ["state", "lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("can't make {}", dir.join(sub).display()))?;
        }
        let dump = Cmd::new("apt-config").arg("dump").read()?;
        let conf = dir.join("apt.conf");
        write_if_changed(&conf, private_configuration(&dump, dir).as_bytes(), false)?;
        let apt = Self { conf };
        note("fetching Debian's package lists (into a private folder)");
        apt.cmd("apt-get").args(["update", "-qq"]).run().context(
            "Debian's package lists can't be fetched; check the network and /etc/apt/sources.list, which must name \
             the release's main and security archives",
        )?;
        Ok(apt)
    }

    /// The package in the version given, or in the one that apt would install.
    ///
    /// # Errors
    ///
    /// When apt itself fails.
    pub fn look_up(&self, name: &str, version: Option<&str>) -> Result<Option<Package>> {
        let spec = version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}"));
        let output = self
            .cmd("apt-cache")
            .args(["show", "--no-all-versions", &spec])
            .output()?;
        Ok(parse_show(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Every version of a package that the sources have, in apt's order.
    ///
    /// # Errors
    ///
    /// When apt itself fails.
    pub fn all_versions(&self, name: &str) -> Result<Vec<Package>> {
        let output = self
            .cmd("apt-cache")
            .args(["show", "--all-versions", name])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.split("\n\n").filter_map(parse_show).collect())
    }

    /// Downloads packages into `dir`, each in exactly its version; apt verifies signatures and hashes.
    ///
    /// # Errors
    ///
    /// When a package can't be fetched or is not what the signed lists say.
    pub fn download(&self, packages: &[Package], dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let specs = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version));
        self.cmd("apt-get")
            .args(["download", "-q"])
            .args(specs)
            .dir(dir)
            .run()
    }

    fn cmd(&self, program: &str) -> Cmd {
        Cmd::new(program)
            .env("APT_CONFIG", &self.conf)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
    }
}

/// Names of the packages that are installed on this machine.
///
/// # Errors
///
/// When dpkg fails.
pub fn installed() -> Result<BTreeSet<String>> {
    let text = Cmd::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .read()?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect())
}

/// apt's configuration as dumped, turned so that it writes below `dir` only and runs none of the system's hooks.
///
/// It is given as `APT_CONFIG`, which apt reads before the system's files; those are then switched off, because a
/// hook that they add could not be removed again, and some of them work on system folders.
fn private_configuration(dump: &str, dir: &Path) -> String {
    let mut text: String = dump
        .lines()
        .filter(|line| {
            let key = line.split(' ').next().unwrap_or_default();
            // List items ("A::B:: value") are apt's own defaults, which it adds again by itself, and hooks.
            let list_item = key.ends_with("::");
            let compressor = key.starts_with("APT::Compressor");
            // Catalogues of graphical package managers: megabytes that nobody here reads.
            let catalogue = key.contains("DEP-11") || key.contains("CNF");
            !(list_item || compressor || catalogue || key.starts_with("CommandLine"))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let dir = dir.display();
    text.push_str(&format!(
        "Dir::State \"{dir}/state\";\nDir::State::lists \"{dir}/lists\";\nDir::Cache \"{dir}/cache\";\n\
         Dir::Cache::archives \"archives\";\nDir::Cache::pkgcache \"pkgcache.bin\";\n\
         Dir::Cache::srcpkgcache \"srcpkgcache.bin\";\nDir::Etc::parts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\n\
         Acquire::Languages \"none\";\n"
    ));
    // apt's own download user can't write below a home folder; only the person who runs this reads the result.
    text.push_str("APT::Sandbox::User \"root\";\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_configuration_keeps_settings_and_drops_hooks() {
        let dump = "APT \"\";\nAcquire::http::Proxy \"http://proxy:1\";\nAPT::Update::Post-Invoke \"\";\n\
                    APT::Update::Post-Invoke:: \"rm -f /x\";\nAPT::Compressor::.::Name \".\";\n\
                    Acquire::IndexTargets::deb::DEP-11::MetaKey \"k\";\nDir::State \"var/lib/apt\";\n";
        let text = private_configuration(dump, Path::new("/c"));
        assert!(text.contains("Acquire::http::Proxy \"http://proxy:1\";\n"));
        assert!(!text.contains("rm -f") && !text.contains("Compressor") && !text.contains("DEP-11"));
        let last_state = text
            .lines()
            .rfind(|line| line.starts_with("Dir::State "))
            .unwrap();
        assert_eq!(last_state, "Dir::State \"/c/state\";");
    }
}
