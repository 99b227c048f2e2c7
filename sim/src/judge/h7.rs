//! H7: at most one run of a workflow id is open at a time.

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (id, runs) in evidence.by_id() {
        for pair in runs.windows(2) {
            let [one, next] = pair else { continue };
            match one.closed() {
                None => {
                    let text = format!("run {} is open, and run {} came later", one.run, next.run);
                    findings.add(&id, text);
                }
                Some(at) if at > next.started() => {
                    let by = (at - next.started()) / 1000;
                    let text =
                        format!("run {} began {by} us before run {} closed", next.run, one.run);
                    findings.add(&id, text);
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, fires, quiet};
    use super::*;

    #[test]
    fn one_run_is_open_at_a_time() {
        let mut world = World::default();
        world.run("w", "r1").started("s1").terminated("x");
        world.run("w", "r2").started("s2");
        quiet(check, &world);
        world.run("w", "r3").started("s3");
        fires(check, &world, "run r2 is open, and run r3 came later");
        let mut over = World::default();
        over.run("w", "r1").started("s1").terminated("x").set_time(2, 900);
        over.run("w", "r2").started("s2").set_time(1, 500);
        fires(check, &over, "before run r1 closed");
    }
}
