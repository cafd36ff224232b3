//! What can be typed. Every command and flag with its help; no behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::moment::{Moment, lines, moment};

/// Turns a directory of manifests into running containers, and keeps it so.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, disable_help_subcommand = true, infer_subcommands = false)]
#[command(after_help = "Exit codes: 0 fine, 1 the answer is no (invalid, changes pending), 2 could not do it.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Configuration file [default: /etc/mainstay/config.toml when it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of what survives a reboot
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Directory of sockets and of what one boot needs
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// How answers look
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Any setting of the configuration file, for this command
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; keys are stable.
    Json,
}

/// Flags of the agent itself. Each is a setting of the configuration file, too.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArgs {
    /// Directories with manifests [default: /etc/mainstay/manifests]
    #[arg(value_name = "DIR")]
    pub(crate) sources: Vec<PathBuf>,
    /// Address of metrics and health, `none` for the socket only [default: 127.0.0.1:9641]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<String>,
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Level or filter of log lines [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// Name of the pods' bridge [default: mainstay0]
    #[arg(long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// IPv4 range of the pods [default: one that is free]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Option<String>,
    /// IPv4 range of the virtual addresses of Services; a free one by default
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_subnet: Option<String>,
    /// Parent of all control groups [default: mainstay]
    #[arg(long, value_name = "GROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Labels of this node
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub(crate) node_labels: Option<String>,
    /// Read the sources again at least this often [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub(crate) resync: Option<String>,
    /// Let pods reach the cloud's metadata address
    #[arg(long)]
    pub(crate) allow_metadata: bool,
    /// Only look whether the agent could work with this configuration on this host; changes nothing
    #[arg(long)]
    pub(crate) check: bool,
    #[arg(long, hide = true)]
    pub(crate) boot_id: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent until it is told to end; containers go on without it
    Run(Box<RunArgs>),
    /// Show sources, workloads and what is not as it should be
    Status {
        /// Only this workload, with all its details
        name: Option<String>,
        /// Wait until everything is as wished, at most so long; exit code 1 when it is not
        #[arg(long, value_name = "TIME")]
        wait: Option<humantime::Duration>,
    },
    /// List pods and containers
    Ps {
        /// Ended containers, too
        #[arg(short, long)]
        all: bool,
    },
    /// Show what a container wrote
    Logs {
        /// A workload or pod, and which of its containers
        #[arg(value_name = "NAME[/CONTAINER]")]
        name: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Of this container
        #[arg(short, long)]
        container: Option<String>,
        /// The newest so many lines, or `all`
        #[arg(short = 'n', long, value_name = "N", value_parser = lines, allow_hyphen_values = true)]
        tail: Option<usize>,
        /// Only lines of the last TIME, such as 10m, or since a moment, such as 2026-11-21T14:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Moment>,
        /// Only lines before that
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Moment>,
        /// The log of the attempt that ended last
        #[arg(short, long)]
        previous: bool,
        /// With the time of each line
        #[arg(short, long)]
        timestamps: bool,
    },
    /// Show what happened
    Events {
        /// Go on with what happens now
        #[arg(short, long)]
        follow: bool,
        /// Only of this workload or pod
        name: Option<String>,
        /// The newest so many
        #[arg(short = 'n', long, default_value_t = 50)]
        tail: usize,
        /// Only those of the last TIME, such as 10m, or since a moment, such as 2026-11-21T14:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Moment>,
        /// Only warnings
        #[arg(short, long)]
        warnings: bool,
    },
    /// Check manifests, without an agent and without root; exit code 1 when they are not valid
    Validate {
        /// Files and directories; `-` is stdin
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// Objects that are referred to may be elsewhere
        #[arg(long)]
        partial: bool,
        /// Warnings count as errors
        #[arg(long)]
        strict: bool,
        /// As SARIF 2.1.0, for code hosts
        #[arg(long)]
        sarif: bool,
    },
    /// Show what would change, and why; exit code 1 when there is something
    Plan {
        /// Manifests to compare with what is here (a directory: with all of it); without any, what the agent is about
        /// to do
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Turn a `docker run` command into a Compose file, or a Compose file into Kubernetes objects
    #[command(
        after_help = "Examples: mainstay convert 'docker run -d -p 80:80 nginx' > compose.yaml; mainstay convert compose.yaml > objects.yaml"
    )]
    Convert {
        /// `docker run ...` in one quoted text or word by word, or `-` for stdin; or a Compose file or its directory
        #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Write Compose files for what runs under Docker or Podman; changes nothing there
    #[command(after_help = "Example: mainstay adopt --from docker --dir ./adopted web db")]
    Adopt {
        /// `docker` or `podman`, a file with the output of their `inspect`, or `-` for stdin
        #[arg(long, value_name = "FROM", default_value = "docker")]
        from: String,
        /// Directory that the files are written to, none that the agent reads; without it they are shown. No file is
        /// overwritten
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Containers; without one all that run
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show what a field of a manifest does here, such as `pod.spec.containers.resources` or `service.ports`
    Explain {
        /// A kind, or a field of it; `compose` or `service` for Compose files; without it all kinds
        field: Option<String>,
    },
    /// Stop everything that the agent manages and end it; volumes stay
    Down {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Stop all containers in order before the host goes down; they start again with the agent
    Shutdown {
        /// All of it takes at most so long; what runs then is killed
        #[arg(long, value_name = "TIME", default_value = "80s")]
        timeout: humantime::Duration,
    },
    /// Let the running agent take its configuration in anew; containers are not touched
    Reload,
    /// Let another version of this program take over; containers are not touched
    Upgrade {
        /// The new binary; it is asked first whether it could work here
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
    },
    /// Read all sources now, and ask the remotes of Git repositories
    Sync,
    /// Try again at once what failed
    Retry {
        /// A workload
        name: String,
    },
    /// Release a removal that is held since it is above the budget
    Approve {
        /// The id that `mainstay status` shows
        id: String,
    },
    /// Explain why a workload is as it is: from cause to effect, its last exit and log lines, what it waits for
    Why {
        /// A workload
        name: String,
        /// The newest so many events
        #[arg(short = 'n', long, default_value_t = 20)]
        tail: usize,
    },
    /// Hold changes back, of a workload or of all; what runs is healed as ever
    Pause {
        /// A workload; all without it
        name: Option<String>,
    },
    /// Take a pause back; without a name also a rollback and a drain
    Resume {
        /// A workload; everything without it
        name: Option<String>,
    },
    /// List the states that this node was in
    History,
    /// Show what differs between two generations; exit code 1 when something does
    Diff {
        /// A generation
        from: u64,
        /// Another one [default: the newest]
        to: Option<u64>,
    },
    /// Go back to a generation and stay there until the sources change, or `mainstay resume`
    Rollback {
        /// Its number in `mainstay history`
        generation: u64,
    },
    /// Stop everything in order, for maintenance, until `mainstay uncordon`; exit code 1 when something still runs
    Drain {
        /// Wait at most so long
        #[arg(long, value_name = "TIME", default_value = "90s")]
        timeout: humantime::Duration,
    },
    /// Take a drain back
    Uncordon,
    /// Run a program in a container; ends with its exit code
    Exec {
        /// Hand stdin through
        #[arg(short = 'i', long)]
        stdin: bool,
        /// With a terminal
        #[arg(short, long)]
        tty: bool,
        /// As this user[:group]
        #[arg(short, long)]
        user: Option<String>,
        /// In this directory
        #[arg(short, long, value_name = "DIR")]
        workdir: Option<String>,
        /// With this variable; without `=` it is taken from here
        #[arg(short, long, value_name = "NAME[=VALUE]")]
        env: Vec<String>,
        /// In this container
        #[arg(short, long)]
        container: Option<String>,
        /// With every capability and without the system call filter
        #[arg(long)]
        privileged: bool,
        /// A workload or pod, and which of its containers
        #[arg(value_name = "NAME[/CONTAINER]")]
        name: String,
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Copy files to or from a container, or `-` for a tar archive on stdin or stdout
    Cp {
        /// NAME[/CONTAINER]:PATH, a path of this host, or `-`
        #[arg(value_name = "FROM")]
        from: String,
        /// The same; the other one of the two
        #[arg(value_name = "TO")]
        to: String,
    },
    /// Show what a container writes as it comes; ends with its exit code
    Attach {
        /// Hand stdin through, where the container has one
        #[arg(short = 'i', long)]
        stdin: bool,
        /// Keys that detach, or `none`
        #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
        detach_keys: String,
        /// A workload or pod, and which of its containers
        #[arg(value_name = "NAME[/CONTAINER]")]
        name: String,
    },
    /// Let ports of this host lead to ports of a pod, for as long as this runs
    PortForward {
        /// A workload or pod
        name: String,
        /// Ports of TCP; without the first part both are the same, with 0 any free one
        #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
        ports: Vec<String>,
        /// Listen on this address [default: 127.0.0.1]
        #[arg(long, value_name = "IP")]
        address: Option<std::net::IpAddr>,
    },
    /// Show what containers use now
    Stats {
        /// Only of this workload or pod
        name: Option<String>,
    },
    /// Show what containers use, again and again
    Top {
        /// Only of this workload or pod
        name: Option<String>,
    },
    /// List images
    Images,
    /// Fetch an image from its registry
    Pull {
        /// [registry/]name[:tag][@digest]
        image: String,
        /// os/architecture[/variant] [default: this host's]
        #[arg(long)]
        platform: Option<String>,
        /// Ask the registry only when the image is not here
        #[arg(long)]
        missing: bool,
    },
    /// Load images from an OCI layout, an OCI archive or a Docker archive
    Load {
        /// The file or directory
        path: PathBuf,
    },
    /// Write all layers of an image into a directory, as a container would see them
    Unpack {
        /// A layout or archive, or the name of an image that is here
        source: String,
        /// An empty or new directory
        destination: PathBuf,
        /// Which image, when the source has several
        #[arg(long)]
        image: Option<String>,
    },
    /// Give an image one more name
    Tag {
        /// A name or a digest
        image: String,
        /// The new name
        name: String,
    },
    /// Remove images, or names of them
    Rmi {
        /// Names or digests
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Keep an image however old it is and however full the disk
    Pin {
        /// Names or digests
        #[arg(required = true)]
        images: Vec<String>,
        /// No longer
        #[arg(long)]
        off: bool,
    },
    /// Remove images that no pod uses and a registry can give again
    Prune {
        /// Only what was not used for so long
        #[arg(long, value_name = "TIME", default_value = "24h")]
        older_than: humantime::Duration,
        /// Also images that no registry gives back: loaded from files, or with names from `tag` alone
        #[arg(long)]
        loaded: bool,
        /// Also images that manifests name and no pod runs on now
        #[arg(long)]
        named: bool,
    },
    /// Show the disk space of images
    Df,
    /// Compare every file of the image store with what was unpacked; exit code 1 when something is damaged
    Verify {
        /// Remove damaged layers that no container stands on, so that they are fetched again
        #[arg(long)]
        repair: bool,
    },
    /// Write images into an OCI archive
    Save {
        /// The archive
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        path: PathBuf,
        /// Names of images
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Print JSON Schemas of manifests, for editors
    Schema {
        /// Only this kind
        kind: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        dir: PathBuf,
    },
    /// Show effective settings and where each comes from
    Config,
    /// Show the version
    Version,
}
