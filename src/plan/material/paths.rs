//! Paths as people write them, and patterns of them. Nothing here looks at the world.

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// The path without `.`, and without `..` where that leads back out of a folder that it names.
pub fn normalized(path: &str) -> String {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in Path::new(path).components() {
        match (part, parts.last()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// A path that may hold `*`, `?`, `[..]` and `**`.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: GlobMatcher,
    /// The folder that is looked through.
    pub folder: String,
    /// How many folders below it a match can lie; nothing for any number.
    pub depth: Option<usize>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is none, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = normalized(text);
        let glob = GlobBuilder::new(&text).literal_separator(true).build();
        let matcher = glob.map_err(|error| error.kind().to_string())?.compile_matcher();
        let parts: Vec<&str> = text.split('/').collect();
        let fixed = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{'])).count();
        let fixed = fixed.min(parts.len() - 1);
        let depth = (!text.contains("**")).then_some(parts.len() - 1 - fixed);
        let folder = parts[..fixed].join("/");
        let folder = if folder.is_empty() && text.starts_with('/') { "/".to_owned() } else { folder };
        Ok(Self { matcher, folder, depth })
    }

    /// Whether it fits a path without `.` and `..`.
    pub fn fits(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_in_one_way() {
        let pairs = [
            ("a.sql", "a.sql"),
            ("./a/../b//c.sql", "b/c.sql"),
            ("../x/./../y", "../y"),
            ("../../y", "../../y"),
            ("/a/../../b", "/b"),
            ("", ""),
        ];
        for (written, normal) in pairs {
            assert_eq!(normalized(written), normal, "{written}");
        }
    }

    #[test]
    fn a_pattern_knows_where_to_look() {
        let pattern = Pattern::new("./scripts/*.sh").expect("a pattern");
        assert_eq!((pattern.folder.as_str(), pattern.depth), ("scripts", Some(0)));
        assert!(pattern.fits("scripts/a.sh") && !pattern.fits("scripts/deep/a.sh") && !pattern.fits("a.sh"));
        let deep = Pattern::new("maps/**/*.yaml").expect("a pattern");
        assert_eq!((deep.folder.as_str(), deep.depth), ("maps", None));
        assert!(deep.fits("maps/a.yaml") && deep.fits("maps/b/c/a.yaml"));
        let plain = Pattern::new("../shared/one.py").expect("a path");
        assert_eq!((plain.folder.as_str(), plain.depth), ("../shared", Some(0)));
        assert!(plain.fits("../shared/one.py"));
        assert!(Pattern::new("a[").is_err());
    }
}
