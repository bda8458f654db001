//! The series of the transfer tests: `perf` in the source becomes `perf_item` in the target, which has columns of its own.

/// Copies the measured columns, with a total that is computed; for tables that have them.
pub(crate) const TOTALLED: &str = "    key: [entity_id, step_start]
    columns: { entity_id: entity_id, step_start: step_start, iv: iv, handle_s: handle_s, label: label }
    expressions: { total: \"iv * 2\" }
    additive: [iv, handle_s]
";

/// A mapping with these table sets; `perf` is what is said of that table beside its name and `src`, with an indent of four, and whatever follows it.
pub(crate) fn mapping(name: &str, sets: &str, perf: &str) -> String {
    format!(
        "apiVersion: piton/v1\nkind: Mapping\nname: {name}\nsets: {{ {sets} }}\ntables:\n  perf:\n    to: perf_item\n    \
         constants: {{ src: \"65\" }}\n    ignore: {{ target: [extra] }}\n{perf}"
    )
}
