//! From a profile to BPF: one decision tree over call numbers for each architecture, arguments compared at its leaves.
//!
//! Call numbers above the newest that the profile names answer ENOSYS instead of EPERM, so that a libc that is
//! newer than the profile falls back to older calls (as runc does).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::numbers;
use super::profile::{Arg, Conditions, Profile};
use super::{CapSet, SeccompError};
use crate::sys::BpfInsn;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<BpfInsn>,
    /// Flags for seccomp(2).
    pub flags: u64,
}

const LD_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JA: u16 = 0x05;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const SPEC_ALLOW: u64 = 4;

/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// Bit of the calls of the x32 ABI, which share x86_64's architecture value.
const X32_BIT: u32 = 0x4000_0000;

struct Arch {
    /// Name in profiles.
    scmp: &'static str,
    /// Name in `arches` conditions.
    go: &'static str,
    /// `AUDIT_ARCH_*`.
    audit: u32,
    table: &'static [(&'static str, u32)],
}

/// What this host runs, its own first.
const HOST: &[Arch] = if cfg!(target_arch = "aarch64") {
    &[Arch { scmp: "SCMP_ARCH_AARCH64", go: "arm64", audit: 0xc000_00b7, table: numbers::AARCH64 }]
} else {
    &[
        Arch { scmp: "SCMP_ARCH_X86_64", go: "amd64", audit: 0xc000_003e, table: numbers::X86_64 },
        Arch { scmp: "SCMP_ARCH_X86", go: "x86", audit: 0x4000_0003, table: numbers::I386 },
    ]
};

fn insn(code: u16, k: u32) -> BpfInsn {
    BpfInsn { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> BpfInsn {
    BpfInsn { code, jt, jf, k }
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, SeccompError> {
    // Without a number, ERRNO means EPERM and TRACE carries 0 (OCI: errnoRet defaults to EPERM).
    let data = errno.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_TRACE" => TRACE | data,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ALLOW" => ALLOW,
        other => return Err(SeccompError::Unsupported(format!("action {other}"))),
    })
}

fn flag(name: &str) -> Result<u64, SeccompError> {
    match name {
        // The process has one thread when the filter is installed.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(0),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(2),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(SPEC_ALLOW),
        other => Err(SeccompError::Unsupported(format!("flag {other}"))),
    }
}

/// One rule of one call: all conditions hold, then the value is returned.
#[derive(Debug, Clone)]
struct Branch<'p> {
    conditions: Vec<&'p Arg>,
    value: u32,
}

fn applies(includes: &Conditions, excludes: &Conditions, caps: CapSet, arch: &Arch) -> bool {
    let has = |name: &String| CapSet::named(name).is_some_and(|cap| caps.contains(cap));
    (includes.arches.is_empty() || includes.arches.iter().any(|name| name == arch.go || name == HOST[0].go))
        && includes.caps.iter().all(has)
        && !excludes.arches.iter().any(|name| name == arch.go)
        && !excludes.caps.iter().any(has)
}

/// The profile in the form of the OCI runtime specification: without conditions, those that do not hold left out.
pub(super) fn oci(profile: &Profile, caps: CapSet) -> Value {
    let with = |mut value: Value, name: &str, errno: Option<u32>| {
        if let Some(errno) = errno {
            value[name] = json!(errno);
        }
        value
    };
    let rules = profile.syscalls.iter().filter(|rule| applies(&rule.includes, &rule.excludes, caps, &HOST[0]));
    let rules: Vec<Value> = rules
        .map(|rule| {
            let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
            let arg =
                |arg: &Arg| json!({"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op});
            let args: Vec<Value> = rule.args.iter().flatten().map(arg).collect();
            with(json!({"names": names, "action": rule.action, "args": args}), "errnoRet", rule.errno_ret)
        })
        .collect();
    let architectures: Vec<&str> = HOST.iter().map(|arch| arch.scmp).collect();
    let whole = json!({
        "defaultAction": profile.default_action, "architectures": architectures, "flags": profile.flags, "syscalls": rules,
    });
    with(whole, "defaultErrnoRet", profile.default_errno_ret)
}

fn branches<'p>(
    profile: &'p Profile,
    caps: CapSet,
    arch: &Arch,
) -> Result<BTreeMap<u32, Vec<Branch<'p>>>, SeccompError> {
    let table: BTreeMap<&str, u32> = arch.table.iter().copied().collect();
    let mut result: BTreeMap<u32, Vec<Branch<'p>>> = BTreeMap::new();
    for rule in &profile.syscalls {
        if !applies(&rule.includes, &rule.excludes, caps, arch) {
            continue;
        }
        let value = action(&rule.action, rule.errno_ret)?;
        let args = rule.args.as_deref().unwrap_or_default();
        if let Some(bad) = args.iter().find(|arg| arg.index > 5) {
            return Err(SeccompError::Unsupported(format!("argument index {}", bad.index)));
        }
        // Several conditions on one argument are alternatives (as in runc), else all must hold.
        let twice = args.iter().enumerate().any(|(at, a)| args.iter().skip(at + 1).any(|b| a.index == b.index));
        let ways: Vec<Vec<&Arg>> =
            if twice { args.iter().map(|arg| vec![arg]).collect() } else { vec![args.iter().collect()] };
        for number in rule.names.iter().chain(&rule.name).filter_map(|name| table.get(name.as_str())) {
            let list = result.entry(*number).or_default();
            list.extend(ways.iter().map(|conditions| Branch { conditions: conditions.clone(), value }));
        }
    }
    Ok(result)
}

/// Instructions that fall through when the condition holds and otherwise skip `rest` further instructions.
fn condition(arg: &Arg, rest: usize) -> Result<Vec<BpfInsn>, SeccompError> {
    let low = |value: u64| (value & 0xffff_ffff) as u32;
    let high = |value: u64| (value >> 32) as u32;
    let at_low = OFFSET_ARGS + arg.index * 8;
    let at_high = at_low + 4;
    let skip = |behind: usize| {
        u8::try_from(rest + behind).map_err(|_| SeccompError::Unsupported("too many conditions in a rule".to_owned()))
    };
    let v = arg.value;
    Ok(match arg.op.as_str() {
        "SCMP_CMP_EQ" => vec![
            insn(LD_ABS, at_high),
            jump(JEQ, high(v), 0, skip(2)?),
            insn(LD_ABS, at_low),
            jump(JEQ, low(v), 0, skip(0)?),
        ],
        "SCMP_CMP_NE" => {
            vec![insn(LD_ABS, at_high), jump(JEQ, high(v), 0, 2), insn(LD_ABS, at_low), jump(JEQ, low(v), skip(0)?, 0)]
        }
        "SCMP_CMP_MASKED_EQ" => vec![
            insn(LD_ABS, at_high),
            insn(AND, high(v)),
            jump(JEQ, high(arg.value_two & v), 0, skip(3)?),
            insn(LD_ABS, at_low),
            insn(AND, low(v)),
            jump(JEQ, low(arg.value_two & v), 0, skip(0)?),
        ],
        // high greater: holds; high equal: the low halves decide.
        "SCMP_CMP_GT" | "SCMP_CMP_GE" => {
            let code = if arg.op.ends_with("GT") { JGT } else { JGE };
            vec![
                insn(LD_ABS, at_high),
                jump(JGT, high(v), 3, 0),
                jump(JEQ, high(v), 0, skip(2)?),
                insn(LD_ABS, at_low),
                jump(code, low(v), 0, skip(0)?),
            ]
        }
        "SCMP_CMP_LT" | "SCMP_CMP_LE" => {
            let code = if arg.op.ends_with("LT") { JGE } else { JGT };
            vec![
                insn(LD_ABS, at_high),
                jump(JGT, high(v), skip(3)?, 0),
                jump(JEQ, high(v), 0, 2),
                insn(LD_ABS, at_low),
                jump(code, low(v), skip(0)?, 0),
            ]
        }
        other => return Err(SeccompError::Unsupported(format!("comparison {other}"))),
    })
}

/// Code of one call; always ends in a return.
fn leaf(list: &[Branch<'_>], default: u32) -> Result<Vec<BpfInsn>, SeccompError> {
    let mut code = Vec::new();
    for branch in list {
        // Built from the end, since a failed condition skips what follows it in this branch.
        let mut body = vec![insn(RET, branch.value)];
        for arg in branch.conditions.iter().rev() {
            let mut test = condition(arg, body.len())?;
            test.append(&mut body);
            body = test;
        }
        code.append(&mut body);
        if branch.conditions.is_empty() {
            return Ok(code);
        }
    }
    code.push(insn(RET, default));
    Ok(code)
}

/// Binary search over the starts of ranges that share their code.
fn tree(ranges: &[(u32, Vec<BpfInsn>)]) -> Vec<BpfInsn> {
    match ranges {
        [] => Vec::new(),
        [(_, code)] => code.clone(),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let middle = right[0].0;
            let mut low = tree(left);
            let mut code = match u8::try_from(low.len()) {
                Ok(skip) => vec![jump(JGE, middle, skip, 0)],
                Err(_) => vec![jump(JGE, middle, 0, 1), insn(JA, u32::try_from(low.len()).unwrap_or(u32::MAX))],
            };
            code.append(&mut low);
            code.extend(tree(right));
            code
        }
    }
}

fn arch_code(profile: &Profile, caps: CapSet, arch: &Arch, default: u32) -> Result<Vec<BpfInsn>, SeccompError> {
    let rules = branches(profile, caps, arch)?;
    let newest = rules.last_key_value().map_or(0, |(number, _)| *number);
    // A profile that allows by default means unknown calls too.
    let unknown = if default == ALLOW || default == LOG { default } else { ERRNO | libc::ENOSYS.unsigned_abs() };
    let mut ranges: Vec<(u32, Vec<BpfInsn>)> = Vec::new();
    let mut push = |start: u32, code: Vec<BpfInsn>| {
        if ranges.last().is_none_or(|(_, last)| *last != code) {
            ranges.push((start, code));
        }
    };
    let mut next = 0;
    for (&number, list) in &rules {
        if number > next {
            push(next, vec![insn(RET, default)]);
        }
        push(number, leaf(list, default)?);
        next = number + 1;
    }
    push(newest + 1, vec![insn(RET, unknown)]);
    if arch.scmp == "SCMP_ARCH_X86_64" {
        push(X32_BIT, vec![insn(RET, ERRNO | libc::ENOSYS.unsigned_abs())]);
    }
    let mut code = vec![insn(LD_ABS, OFFSET_NR)];
    code.extend(tree(&ranges));
    Ok(code)
}

fn wanted(profile: &Profile, arch: &Arch) -> bool {
    let mapped = profile
        .arch_map
        .iter()
        .flat_map(|map| std::iter::once(&map.architecture).chain(map.sub_architectures.iter().flatten()));
    let mut listed = profile.architectures.iter().chain(mapped).peekable();
    listed.peek().is_none() || listed.any(|name| name == arch.scmp)
}

/// Compiles a profile for a container with these capabilities.
pub(super) fn compile(profile: &Profile, caps: CapSet) -> Result<Filter, SeccompError> {
    if profile.listener_path.is_some() {
        return Err(SeccompError::Unsupported("a listener (listenerPath)".to_owned()));
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    // Like runc: a filter alone does not slow the program down by speculation controls.
    let implied = if profile.flags.is_empty() { SPEC_ALLOW } else { 0 };
    let flags = profile.flags.iter().try_fold(implied, |all, name| flag(name).map(|bit| all | bit))?;
    let mut program = vec![insn(LD_ABS, OFFSET_ARCH)];
    for arch in HOST.iter().filter(|arch| wanted(profile, arch)) {
        let code = arch_code(profile, caps, arch, default)?;
        // Another architecture: over this one's code, with the long jump since code exceeds 255 instructions.
        program.push(jump(JEQ, arch.audit, 1, 0));
        program.push(insn(JA, u32::try_from(code.len()).unwrap_or(u32::MAX)));
        program.extend(code);
    }
    program.push(insn(RET, KILL_PROCESS));
    if program.len() > 4096 {
        return Err(SeccompError::TooLarge(program.len()));
    }
    Ok(Filter { program, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oci_form_has_no_conditions_any_more() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"name": "mount", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]},
             "args": [{"index": 0, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}
        ]}"#;
        let profile: Profile = serde_json::from_str(text).expect("a profile");
        let rules = |caps| oci(&profile, caps)["syscalls"].clone();
        let read = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": []});
        let args = json!([{"index": 0, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]);
        let clone = json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": args});
        let mount = json!({"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": []});
        assert_eq!(rules(CapSet::EMPTY), json!([read, clone]));
        assert_eq!(rules(CapSet::SYS_ADMIN), json!([read, mount]));
        let whole = oci(&profile, CapSet::EMPTY);
        assert_eq!((&whole["defaultAction"], &whole["defaultErrnoRet"]), (&json!("SCMP_ACT_ERRNO"), &json!(38)));
    }

    /// Interprets a filter as the kernel does.
    fn run(filter: &Filter, audit: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(audit.to_le_bytes());
        data.extend([0; 8]);
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = filter.program[pc];
            pc += 1;
            let branch = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
            match i.code {
                LD_ABS => {
                    let at = i.k as usize;
                    acc = u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
                }
                AND => acc &= i.k,
                JEQ => pc += branch(acc == i.k),
                JGT => pc += branch(acc > i.k),
                JGE => pc += branch(acc >= i.k),
                JA => pc += i.k as usize,
                RET => return i.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn number(arch: &Arch, name: &str) -> u32 {
        arch.table.iter().find(|(n, _)| *n == name).map(|(_, number)| *number).expect(name)
    }

    const EPERM: u32 = ERRNO | 1;
    const ENOSYS: u32 = ERRNO | 38;

    fn check(caps: &[&str], name: &str, arg0: u64, expected: u32) {
        let caps = caps.iter().filter_map(|cap| CapSet::named(cap)).fold(CapSet::EMPTY, CapSet::with);
        let filter = compile(&super::super::default_profile::profile(), caps).expect("the built-in profile compiles");
        for arch in HOST {
            let got = run(&filter, arch.audit, number(arch, name), [arg0, 0, 0, 0, 0, 0]);
            assert_eq!(got, expected, "{name}({arg0:#x}) on {}: {got:#x}", arch.go);
        }
    }

    #[test]
    fn the_default_profile_decides() {
        check(&[], "read", 0, ALLOW);
        check(&[], "writev", 7, ALLOW);
        check(&[], "mount", 0, EPERM);
        check(&["CAP_SYS_ADMIN"], "mount", 0, ALLOW);
        check(&[], "unshare", 0, EPERM);
        check(&[], "clone3", 0, ENOSYS);
        check(&["CAP_SYS_ADMIN"], "clone3", 0, ALLOW);
        check(&[], "clone", 0x11, ALLOW);
        check(&[], "clone", 0x1000_0011, EPERM);
        check(&["CAP_SYS_ADMIN"], "clone", 0x1000_0011, ALLOW);
        check(&[], "socket", 2, ALLOW);
        check(&[], "socket", 40, EPERM);
        check(&[], "socket", 1 << 32 | 40, ALLOW);
        check(&[], "personality", 0xffff_ffff, ALLOW);
        check(&[], "personality", 0x4_0000, EPERM);
        check(&[], "keyctl", 0, EPERM);
        check(&[], "io_uring_setup", 0, EPERM);
        check(&["CAP_SYS_CHROOT"], "chroot", 0, ALLOW);
        check(&[], "reboot", 0, EPERM);
    }

    #[test]
    fn odd_numbers_and_architectures() {
        let filter = compile(&super::super::default_profile::profile(), CapSet::EMPTY).expect("compiles");
        assert_eq!(run(&filter, HOST[0].audit, 9999, [0; 6]), ENOSYS);
        assert_eq!(run(&filter, 0x1234, 0, [0; 6]), KILL_PROCESS);
        if HOST[0].go == "amd64" {
            assert_eq!(run(&filter, HOST[0].audit, X32_BIT, [0; 6]), ENOSYS, "x32 read");
        }
    }

    fn op(op: &str, value: u64, value_two: u64, arg: u64, holds: bool) {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ERRNO",
            "args":[{{"index":1,"value":{value},"valueTwo":{value_two},"op":"SCMP_CMP_{op}"}},
                    {{"index":2,"value":5,"op":"SCMP_CMP_EQ"}}]}}]}}"#
        );
        let profile: Profile = serde_json::from_str(&text).expect("a profile");
        let filter = compile(&profile, CapSet::EMPTY).expect("compiles");
        let read = number(&HOST[0], "read");
        let expected = if holds { EPERM } else { ALLOW };
        assert_eq!(run(&filter, HOST[0].audit, read, [0, arg, 5, 0, 0, 0]), expected, "{arg:#x} {op} {value:#x}");
        assert_eq!(run(&filter, HOST[0].audit, read, [0, arg, 6, 0, 0, 0]), ALLOW, "the second condition fails");
    }

    #[test]
    fn comparisons_look_at_all_64_bits() {
        let big = 0x1_0000_0005;
        for (arg, order) in [(5, -1), (big - 1, -1), (big, 0), (big + 1, 1), (0x2_0000_0000, 1), (6, -1)] {
            op("EQ", big, 0, arg, order == 0);
            op("NE", big, 0, arg, order != 0);
            op("GT", big, 0, arg, order > 0);
            op("GE", big, 0, arg, order >= 0);
            op("LT", big, 0, arg, order < 0);
            op("LE", big, 0, arg, order <= 0);
        }
        op("MASKED_EQ", 0xf_0000_000f, 0x1_0000_0005, 0x1_0000_0ff5, true);
        op("MASKED_EQ", 0xf_0000_000f, 0x1_0000_0005, 0x2_0000_0ff5, false);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let bad = |text: &str| {
            let profile: Profile = serde_json::from_str(text).expect("a profile");
            compile(&profile, CapSet::EMPTY).expect_err("refused").to_string()
        };
        assert!(bad(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).contains("SCMP_ACT_NOTIFY"));
        assert!(bad(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#).contains("flag X"));
    }
}
