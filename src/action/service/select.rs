//! Which services an action means, and in which order they may be touched.
//!
//! A name or pattern that matches nothing is refused, above all in `except`: a slip there would stop the wrong thing.
//! Used by the service actions.

use std::collections::BTreeSet;

use globset::{Glob, GlobMatcher};

use super::super::Failure;
use crate::site::Site;
use crate::spec::actions::Services;

/// The names of the services that are meant, in the order of the site.
pub(crate) fn select<'a>(site: &'a Site, args: &Services) -> Result<Vec<&'a str>, Failure> {
    let one = args.service.iter().cloned();
    let patterns: Vec<String> = one.chain(args.services.iter().cloned()).collect();
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    for pattern in &patterns {
        chosen.extend(matching(site, pattern, "")?);
    }
    if let Some(group) = &args.group {
        let members = site.services.0.iter().filter(|(_, service)| service.group.as_ref() == Some(group));
        let before = chosen.len();
        chosen.extend(members.map(|(key, _)| key.text.as_str()));
        if chosen.len() == before {
            return Err(Failure::permanent(format!("the site `{}` has no service in group `{group}`", site.name)));
        }
    }
    for pattern in &args.except {
        for name in matching(site, pattern, "`except`: ")? {
            chosen.remove(name);
        }
    }
    if chosen.is_empty() {
        return Err(Failure::permanent("no service is left to act on: `except` takes all of them away"));
    }
    Ok(site.services.names().filter(|name| chosen.contains(name)).collect())
}

fn matching<'a>(site: &'a Site, pattern: &str, place: &str) -> Result<Vec<&'a str>, Failure> {
    if let Some(exact) = site.services.names().find(|name| *name == pattern) {
        return Ok(vec![exact]);
    }
    let matcher: GlobMatcher = Glob::new(pattern)
        .map_err(|error| Failure::permanent(format!("{place}`{pattern}` is no pattern: {error}")))?
        .compile_matcher();
    let found: Vec<&str> = site.services.names().filter(|name| matcher.is_match(name)).collect();
    if found.is_empty() {
        return Err(Failure::permanent(format!("{place}the site `{}` has no service `{pattern}`", site.name)));
    }
    Ok(found)
}

/// The names in waves: a service comes in a later wave than everything it needs, directly or not.
pub(crate) fn waves<'a>(site: &Site, names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut left: Vec<&str> = names.to_vec();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let (now, later): (Vec<&str>, Vec<&str>) = left.iter().partition(|name| {
            let needs = needed(site, name);
            !left.iter().any(|other| other != *name && needs.contains(other))
        });
        // A circle is refused when the site is read.
        if now.is_empty() {
            waves.push(later);
            break;
        }
        waves.push(now);
        left = later;
    }
    waves
}

/// Everything that a service needs, directly or not.
fn needed<'a>(site: &'a Site, name: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let needs_of = |name: &str| site.services.get(name).map(|service| service.needs.as_slice()).unwrap_or_default();
    let mut open: Vec<&str> = needs_of(name).iter().map(|need| need.value.as_str()).collect();
    seen.extend(open.iter().copied());
    while let Some(next) = open.pop() {
        let needs = needs_of(next);
        open.extend(needs.iter().map(|need| need.value.as_str()).filter(|need| seen.insert(*need)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Place;
    use super::super::tests::services;
    use super::*;

    fn place() -> Place {
        Place::at(|_| {
            let provider = "provider: { process: { argv: [x] } }";
            format!(
                "services:\n  web: {{ group: g, needs: [server], {provider} }}\n  server: {{ group: g, needs: [db], {provider} }}\n  db: {{ {provider} }}\n  collector: {{ group: g, needs: [db], {provider} }}\n"
            )
        })
    }

    #[test]
    fn a_group_except_some_in_order_of_need() {
        let place = place();
        let site = &place.cx.site.site;
        let mut args = services();
        args.group = Some("g".into());
        args.except = vec!["coll*".into()];
        assert_eq!(select(site, &args).expect("some"), ["web", "server"]);
        assert_eq!(waves(site, &["web", "server", "collector"]), [vec!["server", "collector"], vec!["web"]]);
        assert_eq!(waves(site, &["web", "db"]), [vec!["db"], vec!["web"]], "a need through another one counts");
    }

    #[test]
    fn what_matches_nothing_is_refused() {
        let place = place();
        let mut args = services();
        args.group = Some("g".into());
        args.except = vec!["colector".into()];
        let failure = select(&place.cx.site.site, &args).expect_err("a slip");
        assert_eq!(failure.error, "`except`: the site `lab` has no service `colector`");
        args.except = vec!["*".into()];
        assert!(select(&place.cx.site.site, &args).is_err());
        args.group = Some("h".into());
        assert!(select(&place.cx.site.site, &args).is_err());
    }
}
