//! Which device nodes the processes of a cgroup may use: `devices.allow` on version 1, an eBPF program on version 2.
//!
//! libcgroups does nothing on version 2 without libbpf, and CAP_MKNOD (a default capability) would then open every
//! disk of the host; hence our own program. The list is complete: what no rule allows is denied.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::{CgroupError, Layout, Result, write};
use crate::sys;

/// Allows some access to some devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (every device), `b` or `c`.
    pub kind: char,
    /// Major number; all when `None`.
    pub major: Option<u32>,
    /// Minor number; all when `None`.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

impl DeviceRule {
    /// A rule for one device.
    #[must_use]
    pub fn one(kind: char, major: u32, minor: u32, access: &str) -> Self {
        Self { kind, major: Some(major), minor: Some(minor), access: access.to_owned() }
    }

    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

/// What every container may use (OCI runtime-spec "Default Devices"; runc's and Docker's list), or everything.
#[must_use]
pub fn default_rules(privileged: bool) -> Vec<DeviceRule> {
    if privileged {
        return vec![DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_owned() }];
    }
    let any = |kind| DeviceRule { kind, major: None, minor: None, access: "m".to_owned() };
    let mut rules = vec![any('c'), any('b')];
    // null, zero, full, random, urandom, tty, console, ptmx, net/tun
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200)];
    rules.extend(nodes.map(|(major, minor)| DeviceRule::one('c', major, minor, "rwm")));
    rules.push(DeviceRule { kind: 'c', major: Some(136), minor: None, access: "rwm".to_owned() });
    rules
}

pub(super) fn apply(layout: &Layout, path: &str, rules: &[DeviceRule]) -> Result<()> {
    if let Some(dir) = layout.v2_dir(path) {
        return attach_program(&dir, &program(rules)).map_err(CgroupError::Devices);
    }
    let Some(dir) = layout.v1_dir("devices", path) else {
        return Err(CgroupError::NoController { field: "device access", controller: "devices" });
    };
    write(&dir.join("devices.deny"), "a")?;
    rules.iter().try_for_each(|rule| {
        let line = if rule.kind == 'a' { "a".to_owned() } else { rule.line() };
        write(&dir.join("devices.allow"), &line)
    })
}

/// One eBPF instruction.
fn insn(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    u64::from(code)
        | u64::from(dst | src << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(imm.cast_unsigned()) << 32
}

const LOAD_WORD: u8 = 0x61;
const MOVE32: u8 = 0xbc;
const MOVE32_IMM: u8 = 0xb4;
const SHIFT_RIGHT32: u8 = 0x74;
const AND32: u8 = 0x54;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// A program over `struct bpf_cgroup_dev_ctx` that returns 1 when a rule allows all of the access asked for.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    const ACCESS: u8 = 3;
    const KIND: u8 = 2;
    let mut code = vec![
        insn(LOAD_WORD, KIND, 1, 0, 0),
        insn(MOVE32, ACCESS, KIND, 0, 0),
        insn(SHIFT_RIGHT32, ACCESS, 0, 0, 16),
        insn(AND32, KIND, 0, 0, 0xffff),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let allowed = rule.access.chars().fold(0, |all, c| {
            all | match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        // Register and value that must be equal, each with what prepares the register.
        let mut tests: Vec<(Vec<u64>, u8, i32)> = Vec::new();
        match rule.kind {
            'b' => tests.push((Vec::new(), KIND, 1)),
            'c' => tests.push((Vec::new(), KIND, 2)),
            _ => {}
        }
        if allowed != 7 {
            let rest = vec![insn(MOVE32, 6, ACCESS, 0, 0), insn(AND32, 6, 0, 0, !allowed & 7)];
            tests.push((rest, 6, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                tests.push((Vec::new(), register, number.cast_signed()));
            }
        }
        let mut body = vec![insn(MOVE32_IMM, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)];
        let everything = tests.is_empty();
        for (prepare, register, value) in tests.into_iter().rev() {
            let over = i16::try_from(body.len()).unwrap_or(i16::MAX);
            body.insert(0, insn(JUMP_NOT_EQUAL, register, 0, over, value));
            body.splice(0..0, prepare);
        }
        code.extend(body);
        if everything {
            // What follows could not be reached, and the kernel refuses such a program (EINVAL).
            return code;
        }
    }
    code.extend([insn(MOVE32_IMM, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    const PROG_LOAD: u32 = 5;
    const CGROUP_DEVICE: u64 = 15;
    let license = c"Apache-2.0";
    let mut attributes =
        [CGROUP_DEVICE | (code.len() as u64) << 32, code.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0];
    let fd = sys::bpf(PROG_LOAD, &mut attributes)?;
    sys::take_fd(i32::try_from(fd).map_err(io::Error::other)?)
}

fn attach_program(dir: &Path, code: &[u64]) -> io::Result<()> {
    const PROG_ATTACH: u32 = 8;
    const TYPE_DEVICE: u64 = 6;
    const ALLOW_MULTI: u64 = 2;
    let program = load(code)?;
    let cgroup = File::open(dir)?;
    let fd = |raw: i32| u64::from(raw.cast_unsigned());
    let mut attributes = [fd(cgroup.as_raw_fd()) | fd(program.as_raw_fd()) << 32, TYPE_DEVICE | ALLOW_MULTI << 32];
    sys::bpf(PROG_ATTACH, &mut attributes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets a program as the kernel does.
    fn run(code: &[u64], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
        let mut r = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let i = code[pc];
            pc += 1;
            let (dst, src) = ((i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, imm) = ((i >> 16 & 0xffff) as usize, i >> 32);
            match (i & 0xff) as u8 {
                LOAD_WORD => r[dst] = [kind | access << 16, major, minor][offset / 4],
                MOVE32 => r[dst] = r[src],
                MOVE32_IMM => r[dst] = imm,
                SHIFT_RIGHT32 => r[dst] >>= imm,
                AND32 => r[dst] &= imm,
                JUMP_NOT_EQUAL if r[dst] != imm => pc += offset,
                JUMP_NOT_EQUAL => {}
                EXIT => return r[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_allows_what_rules_allow() {
        let (block, char) = (1, 2);
        let mut rules = default_rules(false);
        rules.push(DeviceRule::one('b', 8, 1, "r"));
        let code = program(&rules);
        for (kind, access, major, minor, expected) in [
            (char, 2, 1, 3, 1),
            (char, 6, 1, 3, 1),
            (char, 2, 1, 1, 0),
            (char, 1, 1, 1, 1),
            (char, 3, 1, 1, 0),
            (char, 6, 136, 77, 1),
            (block, 1, 8, 0, 1),
            (block, 2, 8, 0, 0),
            (block, 2, 8, 1, 1),
            (block, 6, 8, 1, 0),
            (char, 2, 8, 1, 0),
        ] {
            assert_eq!(run(&code, kind, access, major, minor), expected, "{kind} {access} {major}:{minor}");
        }
        assert_eq!(run(&program(&default_rules(true)), block, 6, 8, 0), 1);
        assert_eq!(run(&program(&[]), char, 2, 1, 3), 0);
    }

    #[test]
    fn the_kernel_takes_the_program() {
        let all = default_rules(true);
        for rules in [default_rules(false), all.clone(), [default_rules(false), all].concat(), Vec::new()] {
            match load(&program(&rules)) {
                Ok(_) => {}
                Err(error) if !rustix::process::geteuid().is_root() => eprintln!("skipped: needs root ({error})"),
                Err(error) => panic!("{rules:?}: {error}"),
            }
        }
    }
}
