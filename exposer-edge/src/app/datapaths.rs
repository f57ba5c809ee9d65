//! Opens the paths that the settings ask for, and looks at them for the status.

use exposer_common::names::FLOW_SLOTS;
use exposer_common::proto::message::Path;
use tracing::{info, warn};

use super::error::AppError;
use super::status_view::Observed;
use crate::config::{Config, DatapathChoice};
use crate::datapath::accelerator::{Accelerator, Fallback};
use crate::datapath::combined::Combined;
use crate::datapath::kernel::object::{MISSING, object};
use crate::datapath::kernel::{KernelDatapath, KernelSettings};
use crate::datapath::userspace::{UserspaceDatapath, UserspaceSettings};
use crate::status::DatapathStatus;

/// Zone numbers of the two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonePair {
    /// The public interface.
    pub wan: u8,
    /// The tunnel interface.
    pub tunnel: u8,
}

/// Both paths, or the userspace path with the reason for its being alone.
pub struct Paths {
    /// To be driven.
    pub combined: Combined<UserspaceDatapath, KernelDatapath>,
    /// Why there is no kernel path although the settings allow it.
    pub why_userspace: Option<String>,
}

/// Opens what `config` asks for. Must be called inside a tokio runtime.
///
/// # Errors
///
/// When the kernel path is demanded and can't be had.
pub fn open(config: &Config, zones: ZonePair) -> Result<Paths, AppError> {
    let userspace = UserspaceDatapath::new(UserspaceSettings::new(config.wireguard_interface.clone()));
    let kernel = match config.datapath {
        DatapathChoice::Userspace => return Ok(Paths::userspace(userspace, None)),
        DatapathChoice::Auto | DatapathChoice::Kernel => open_kernel(config, zones),
    };
    match kernel {
        Ok(kernel) => {
            info!(
                component = "app",
                action = "open",
                path = "kernel",
                "the kernel path is open"
            );
            Ok(Paths {
                combined: Combined::new(userspace, Some(kernel)),
                why_userspace: None,
            })
        }
        Err(reason) if config.datapath == DatapathChoice::Kernel => Err(AppError::Kernel(reason)),
        Err(reason) => {
            warn!(
                component = "app",
                action = "open",
                path = "userspace",
                reason,
                "the kernel path can't be used; everything is served by the userspace path"
            );
            Ok(Paths::userspace(userspace, Some(reason)))
        }
    }
}

impl Paths {
    fn userspace(userspace: UserspaceDatapath, why_userspace: Option<String>) -> Self {
        Self {
            combined: Combined::new(userspace, None),
            why_userspace,
        }
    }
}

fn open_kernel(config: &Config, zones: ZonePair) -> Result<KernelDatapath, String> {
    let local = crate::config::local_port_range().map_err(|error| error.to_string())?;
    config.check_host(local).map_err(|error| error.to_string())?;
    let object = object().ok_or_else(|| MISSING.to_owned())?;
    let settings = KernelSettings {
        bpffs: config.bpffs.clone(),
        wan_zone: zones.wan,
        tunnel_zone: zones.tunnel,
        snat_range: config.snat_range,
        heartbeat_max_age: config.heartbeat_max_age,
        new_flows_per_source: config.new_flows_per_source,
    };
    KernelDatapath::open(settings, object).map_err(|error| error.to_string())
}

/// What the status shows of the paths.
pub fn observe<U: Fallback, K: Accelerator>(
    combined: &Combined<U, K>,
    configured: DatapathChoice,
    why_userspace: Option<&str>,
) -> Observed {
    let Some(kernel) = combined.kernel() else {
        return Observed {
            datapath: DatapathStatus {
                configured: configured.to_string(),
                path: Some(Path::Userspace),
                attachments: Vec::new(),
                why_userspace: why_userspace.map(str::to_owned),
                flows: 0,
                flow_slots: 0,
            },
            reasons: Vec::new(),
        };
    };
    let obstacle = combined.obstacle();
    let reasons = kernel.reason_counts().unwrap_or_else(|error| {
        warn!(component = "app", %error, "the counters of reasons can't be read");
        Vec::new()
    });
    Observed {
        datapath: DatapathStatus {
            configured: configured.to_string(),
            path: Some(if obstacle.is_none() {
                Path::Kernel
            } else {
                Path::Userspace
            }),
            attachments: kernel.attachments(),
            why_userspace: obstacle,
            flows: kernel.flow_count(),
            flow_slots: u64::from(FLOW_SLOTS),
        },
        reasons,
    }
}
