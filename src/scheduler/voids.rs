//! Which approvals do not cover another plan: an approval is of one plan digest, and of no other.

use std::collections::BTreeSet;

use super::state::{Stage, State, Status};
use super::workflow::Workflow;
use crate::event::{Change, StepAmended, WaitKind};
use crate::ids::StepId;

impl State {
    /// Approvals that are void when the run goes on under `flow` with another plan digest, under their new names: those
    /// that are asked for now, and those on whose strength something is still to be done.
    pub fn voided_by(&self, flow: &Workflow, steps: &[StepAmended]) -> Vec<StepId> {
        if self.stage == Stage::Rollback {
            return Vec::new();
        }
        let renamed = |id: &StepId| {
            let is_it = |entry: &&StepAmended| matches!(&entry.change, Change::Renamed { from } if from == id);
            steps.iter().find(is_it).map_or_else(|| id.clone(), |entry| entry.step.clone())
        };
        let mut voids = Vec::new();
        for (number, rule) in self.flow.steps().iter().enumerate() {
            let id = renamed(&rule.id);
            let asks = |rule: &super::StepRule| rule.wait.as_ref().is_some_and(|wait| wait.kind == WaitKind::Approval);
            if rule.retired || !asks(rule) || !flow.rule(&id).is_some_and(asks) {
                continue;
            }
            let is_void = match self.steps[number].status {
                Status::Waiting => true,
                Status::Succeeded => self.something_is_left(number, flow, &id),
                _ => false,
            };
            if is_void {
                voids.push(id);
            }
        }
        voids
    }

    /// Whether anything that needs the step, in the old rules or the new ones, is still to be done.
    fn something_is_left(&self, number: usize, flow: &Workflow, id: &StepId) -> bool {
        let is_open = |id: &StepId| {
            self.flow.number(id).is_none_or(|old| {
                !matches!(self.steps[old].status, Status::Succeeded | Status::Skipped) && !self.rule(old).retired
            })
        };
        let reaches = |flow: &Workflow, from: usize| {
            let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
            while let Some(number) = open.pop() {
                open.extend(flow.dependents(number).iter().map(|&(on, _)| on).filter(|on| seen.insert(*on)));
            }
            seen.remove(&from);
            seen.into_iter().any(|number| is_open(&flow.steps()[number].id))
        };
        reaches(&self.flow, number) || flow.number(id).is_some_and(|number| reaches(flow, number))
    }
}
