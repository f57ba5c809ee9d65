//! Debian's control data: what `apt-cache show` prints, and which packages a package needs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

/// A package of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name, as `libllvm22`.
    pub name: String,
    /// Version, as `1:22.1.8-1~deb12u1`.
    pub version: String,
    /// Bytes to download.
    pub size: u64,
    /// What it needs; each item is a list of alternatives, the first preferred.
    pub depends: Vec<Vec<Dependency>>,
}

/// One alternative of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// The version, where exactly one will do (`= version`).
    pub exact: Option<String>,
}

/// A package that is asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the package.
    pub name: String,
    /// The version that was tried; another is taken, and said, where the archive has moved on.
    pub pinned: Option<String>,
    /// Whether its libraries are wanted too.
    pub libraries: bool,
}

impl Wanted {
    /// A package with the libraries it needs, in the archive's present version.
    pub fn with_libraries(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pinned: None,
            libraries: true,
        }
    }

    /// A package alone.
    pub fn alone(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pinned: None,
            libraries: false,
        }
    }

    /// The same, in a certain version if it can be had.
    pub fn pinned(mut self, version: &str) -> Self {
        self.pinned = Some(version.to_owned());
        self
    }
}

/// Parses the first paragraph of `apt-cache show`. `None` where there is no package in it.
pub fn parse_show(text: &str) -> Option<Package> {
    let mut fields = BTreeMap::new();
    for line in text.lines().take_while(|line| !line.trim().is_empty()) {
        // A line that begins with a space continues the field before; none of ours is ever continued.
        if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with(' ')) {
            fields.insert(key, value.trim());
        }
    }
    Some(Package {
        name: (*fields.get("Package")?).to_owned(),
        version: (*fields.get("Version")?).to_owned(),
        size: fields.get("Size").and_then(|size| size.parse().ok()).unwrap_or(0),
        depends: fields
            .get("Depends")
            .map(|text| parse_depends(text))
            .unwrap_or_default(),
    })
}

/// Parses a `Depends` field (Debian policy §7.1): `a (>= 1), b | c:any (= 2) [amd64]`.
pub fn parse_depends(text: &str) -> Vec<Vec<Dependency>> {
    text.split(',')
        .map(|item| item.split('|').filter_map(parse_dependency).collect::<Vec<_>>())
        .filter(|alternatives| !alternatives.is_empty())
        .collect()
}

fn parse_dependency(text: &str) -> Option<Dependency> {
    let text = text.trim();
    let (name, rest) = text.split_at(text.find([' ', '(', '[', '<']).unwrap_or(text.len()));
    let name = name.split(':').next().unwrap_or(name);
    let exact = rest
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(relation, _)| relation.trim().strip_prefix('='))
        .map(|version| version.trim().to_owned());
    (!name.is_empty()).then(|| Dependency {
        name: name.to_owned(),
        exact,
    })
}

/// Whether a dependency of this name is a shared library that a program needs at run time. Compilers, headers,
/// debconf and the like are either there already or not needed by a program that is only unpacked.
fn is_library(name: &str) -> bool {
    name.starts_with("lib")
        && !name.ends_with("-dev")
        && !name.ends_with("-bin")
        && !name.ends_with("-common")
}

/// All packages to download: the wanted ones, and of those that ask for it the libraries that this machine lacks.
///
/// `look_up` finds a package in the archive, in a certain version if one is given.
///
/// # Errors
///
/// What `look_up` returns, and its `None` as an error that names the package and who needs it.
pub fn closure(
    wanted: &[Wanted],
    installed: &BTreeSet<String>,
    mut look_up: impl FnMut(&str, Option<&str>) -> Result<Option<Package>>,
) -> Result<Vec<Package>> {
    let mut found: BTreeMap<String, Package> = BTreeMap::new();
    let mut open: Vec<(String, Option<String>, bool, String)> = wanted
        .iter()
        .map(|want| {
            (
                want.name.clone(),
                want.pinned.clone(),
                want.libraries,
                "this program".to_owned(),
            )
        })
        .collect();
    while let Some((name, version, libraries, needed_by)) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let Some(package) = look_up(&name, version.as_deref())? else {
            anyhow::bail!(
                "the package `{name}`, needed by {needed_by}, is not in this machine's apt sources"
            );
        };
        if libraries {
            for alternatives in &package.depends {
                if alternatives.iter().any(|one| installed.contains(&one.name)) {
                    continue;
                }
                if let Some(one) = alternatives.first().filter(|one| is_library(&one.name)) {
                    open.push((one.name.clone(), one.exact.clone(), true, format!("`{name}`")));
                }
            }
        }
        found.insert(name, package);
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(alternatives: &[Dependency]) -> Vec<&str> {
        alternatives.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn depends_with_versions_alternatives_and_architectures() {
        let parsed = parse_depends(
            "libc6 (>= 2.34), gcc | clang:any (>= 1), libstd-rust-web-1.96 (= 1.96.0+dfsg1-1~deb12u2), x [amd64],",
        );
        assert_eq!(parsed.len(), 4);
        assert_eq!(names(&parsed[0]), ["libc6"]);
        assert_eq!(parsed[0][0].exact, None);
        assert_eq!(names(&parsed[1]), ["gcc", "clang"]);
        assert_eq!(parsed[2][0].exact.as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(names(&parsed[3]), ["x"]);
    }

    #[test]
    fn empty_and_broken_depends_give_nothing() {
        assert!(parse_depends("").is_empty());
        assert!(parse_depends(" , | ,").is_empty());
        assert_eq!(parse_depends("a (=")[0][0].exact, None);
    }

    #[test]
    fn show_reads_the_first_paragraph_only() {
        let text = "Package: a\nVersion: 1:2-3\nDepends: b, c\nDescription: x\n : y\nSize: 42\n\nPackage: other\nVersion: 9\n";
        let package = parse_show(text).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str(), package.size),
            ("a", "1:2-3", 42)
        );
        assert_eq!(package.depends.len(), 2);
        assert_eq!(parse_show("N: nothing\n"), None);
    }

    fn archive(name: &str, version: Option<&str>) -> Result<Option<Package>> {
        let depends = match name {
            "rustc" => "libc6, gcc, libstd-rust-dev (= 1), libllvm22, libone | libtwo",
            "libllvm22" => "libicu72, libc6",
            "libicu72" => "libllvm22",
            "libone" => "",
            _ => return Ok(None),
        };
        let version = version.unwrap_or("7").to_owned();
        Ok(Some(Package {
            name: name.to_owned(),
            version,
            size: 1,
            depends: parse_depends(depends),
        }))
    }

    #[test]
    fn closure_takes_missing_libraries_once_and_leaves_the_rest() {
        let installed = BTreeSet::from(["libc6".to_owned(), "libtwo".to_owned()]);
        let found = closure(
            &[Wanted::with_libraries("rustc").pinned("3")],
            &installed,
            archive,
        )
        .unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str()))
            .collect();
        assert_eq!(found, [("libicu72", "7"), ("libllvm22", "7"), ("rustc", "3")]);
        assert_eq!(
            closure(&[Wanted::alone("rustc")], &installed, archive)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn closure_names_what_is_missing_and_who_needs_it() {
        let lost = |name: &str, version: Option<&str>| {
            if name == "libicu72" {
                Ok(None)
            } else {
                archive(name, version)
            }
        };
        let error = closure(
            &[Wanted::with_libraries("libllvm22")],
            &BTreeSet::from(["libc6".to_owned()]),
            lost,
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("`libicu72`, needed by `libllvm22`"), "{text}");
    }
}
