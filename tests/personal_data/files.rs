//! The store's folder and files are their owner's, or the adapter does not start.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use harness::Upstream;

use super::support::{PROGRAM, run};

#[tokio::test]
async fn a_laxer_mode_is_refused_by_serve_and_by_check() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM);
    let (status, _) = setup.start_ready().await.terminate().await;
    assert!(status.success());
    let store = setup.store();
    let folder = store.parent().unwrap().to_owned();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&store)), (0o700, 0o600));
    for (path, lax, mend) in [(&folder, 0o755, 0o700), (&store, 0o644, 0o600)] {
        fs::set_permissions(path, Permissions::from_mode(lax)).unwrap();
        let (status, log) = setup.start_in_vain().await;
        assert_eq!(status.code(), Some(1), "{log}");
        let advice = format!("chmod {mend:o} {}", path.display());
        assert!(log.contains(&advice), "{log}");
        let output = run(&setup, "127.0.0.1:0", &["check"]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("store.path: ") && text.contains(&advice), "{text}");
        fs::set_permissions(path, Permissions::from_mode(mend)).unwrap();
    }
    assert!(run(&setup, "127.0.0.1:0", &["check"]).await.status.success());
    setup.start_ready().await;
}
