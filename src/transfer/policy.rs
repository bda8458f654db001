//! The merge policies: what happens to a source row when the target may already hold its key.
//!
//! A pure function of the two rows; it reads and writes nothing. Used by `copy` (to act) and `overlap` (to foretell).

use super::mariadb_value::{self, MariaKind};
use super::moment::epoch_second;
use super::plan::TablePlan;
use super::value::{Kind, Value, canonical, decimal};

/// Who wins where both sides hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The source's row replaces the target's. With `replace_row` (the vendor's behaviour) columns that only the target has go back to
    /// their defaults; without it they are kept.
    SourceWins {
        /// Whether the whole row is replaced.
        replace_row: bool,
    },
    /// Rows that the target has stay as they are.
    Fill,
    /// Before `at` the source is the truth (the target's own columns are kept), from `at` on the target; a selected source row at or
    /// after `at` aborts before anything is written.
    SplitAt {
        /// Seconds since the epoch.
        at: i64,
    },
    /// Any common key aborts before anything is written.
    Fail,
    /// The row with the greater coverage column wins; on a tie the target's.
    BestCoverage,
    /// The additive columns are added up; all others stay as the target has them. Safe against repetition only under one token.
    MergeAdditive,
}

impl Policy {
    /// The name in runbooks.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceWins { .. } => "source_wins",
            Self::Fill => "fill",
            Self::SplitAt { .. } => "split_at",
            Self::Fail => "fail",
            Self::BestCoverage => "best_coverage",
            Self::MergeAdditive => "merge_additive",
        }
    }
}

/// What a policy makes of one source row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowEffect {
    Insert,
    Overwrite,
    Add,
    /// The target's row differs and stays.
    Keep,
    /// Both rows are equal already.
    Unchanged,
    /// The policy allows no such row.
    Forbidden,
}

/// Judges one row; `existing` is the target's row in the same column order, target-only columns after the planned ones.
pub(super) fn effect(policy: Policy, plan: &TablePlan, existing: Option<&[Value]>, incoming: &[Value]) -> RowEffect {
    if let Policy::SplitAt { at } = policy
        && plan.time_index().and_then(|i| seconds(&incoming[i])).is_none_or(|t| t >= at)
    {
        return RowEffect::Forbidden;
    }
    let Some(existing) = existing else { return RowEffect::Insert };
    let equal = differing(plan, existing, incoming).is_empty();
    match policy {
        Policy::Fail => RowEffect::Forbidden,
        Policy::MergeAdditive => RowEffect::Add,
        Policy::SourceWins { replace_row: true } if equal && has_own_values(plan, existing) => RowEffect::Overwrite,
        _ if equal => RowEffect::Unchanged,
        Policy::Fill => RowEffect::Keep,
        Policy::SourceWins { .. } | Policy::SplitAt { .. } => RowEffect::Overwrite,
        Policy::BestCoverage => match plan.coverage {
            Some(i) if greater(&incoming[i], &existing[i]) => RowEffect::Overwrite,
            Some(_) | None => RowEffect::Keep,
        },
    }
}

/// The second in which a row's time lies.
fn seconds(time: &Value) -> Option<i64> {
    time.as_integer().or_else(|| epoch_second(&time.to_text()?))
}

/// Whether the target-only part of a row holds anything that a reset to a plain NULL default would lose.
fn has_own_values(plan: &TablePlan, existing: &[Value]) -> bool {
    existing[plan.columns.len()..].iter().zip(&plan.target_only).any(|(value, column)| match &column.default {
        None => *value != Value::Null,
        Some(default) => !is_literal(default, value),
    })
}

/// True where the default is a literal (`0`, `'x'`, `'x'::text`) and the column holds it.
fn is_literal(default: &str, value: &Value) -> bool {
    let bare = default.split("::").next().unwrap_or(default).trim();
    let bare = bare.strip_prefix('(').and_then(|b| b.strip_suffix(')')).unwrap_or(bare);
    match (bare.strip_prefix('\'').and_then(|b| b.strip_suffix('\'')), value.to_text()) {
        (Some(inner), Some(text)) => inner.replace("''", "'") == text,
        (None, Some(text)) => bare == text || decimal(bare).is_some_and(|exact| decimal(&text) == Some(exact)),
        (_, None) => bare.eq_ignore_ascii_case("null"),
    }
}

/// The planned columns in which two rows differ, as indices.
pub(super) fn differing(plan: &TablePlan, a: &[Value], b: &[Value]) -> Vec<usize> {
    (0..plan.columns.len())
        .filter(|i| {
            let kind = plan.columns[*i].target.kind;
            a[*i] != b[*i] && canonical(&a[*i], kind) != canonical(&b[*i], kind)
        })
        .collect()
}

/// NULL covers nothing.
fn greater(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) {
        return a > b;
    }
    let number = |value: &Value| value.to_text().and_then(|text| text.parse::<f64>().ok());
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a > b,
        (Some(_), None) => true,
        (None, Some(_) | None) => false,
    }
}

/// Why two rows cannot be added up, by target column; SQLite would turn an overflow into a floating-point number.
pub(super) fn additive_overflow(plan: &TablePlan, existing: &[Value], incoming: &[Value]) -> Option<(String, String)> {
    plan.additive.iter().find_map(|i| {
        if let Kind::Maria(kind) = plan.columns[*i].target.kind {
            return maria_overflow(kind, &existing[*i], &incoming[*i])
                .map(|why| (plan.columns[*i].target.name.clone(), why));
        }
        let (Value::Int(a), Value::Int(b)) = (&existing[*i], &incoming[*i]) else { return None };
        let column = plan.columns[*i].target.name.clone();
        a.checked_add(*b).is_none().then(|| (column, format!("{a} + {b} is out of the range of 64 bits")))
    })
}

/// Why the sum of two whole numbers is none of a MariaDB column's.
fn maria_overflow(kind: MariaKind, a: &Value, b: &Value) -> Option<String> {
    let wide = |value: &Value| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::UInt(number) => Some(i128::from(*number)),
        _ => None,
    };
    let sum = wide(a)? + wide(b)?;
    mariadb_value::fit(Value::Text(sum.to_string()), None, kind).err()
}
