//! The table of the predecessor says which of its rows are dead letters.

use walpost::store::marking::{Mark, MarkedTable};
use walpost::store::name::TableName;
use walpost::store::undelivered::{KeptState, NewRow, Which};
use walpost_testkit::Postgres;

use super::{Stage, message};
use crate::scene::PUBLISHED;

/// A table of the predecessor with so many rows, what marks them, and messages of them.
async fn stage(rows: u32) -> (Stage, [MarkedTable; 1], Vec<NewRow>) {
    let stage = Stage::on(Postgres::shared().fresh_database()).await;
    stage.sql(PUBLISHED);
    stage.sql(&format!(
        "INSERT INTO public.published SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'v1',
            '/queue/a', '{{}}', now(), now(), 0, 1 FROM generate_series(0, {rows} - 1) AS n"
    ));
    let oid = stage.sql("SELECT 'public.published'::regclass::oid").parse().unwrap();
    let of = |nth: u32| NewRow {
        message_id: Some(format!("00000000-0000-0000-0000-{nth:012}")),
        table: Some((oid, "public.published".to_owned())),
        ..message("/queue/a", nth)
    };
    let marked = MarkedTable {
        table: TableName::new("public", "published"),
        id: "id".to_owned(),
        mark: Mark::Status("status".to_owned()),
    };
    (stage, [marked], (0..rows).map(of).collect())
}

/// Status, attempts, and whether it may go in 15 days, of each row.
fn published(stage: &Stage) -> Vec<String> {
    let rows = stage.sql(
        "SELECT status, retry, expires_at - now() BETWEEN interval '14 days 23 hours' AND interval '15 days'
        FROM public.published ORDER BY id",
    );
    rows.lines().map(str::to_owned).collect()
}

fn dead(row: &NewRow) -> NewRow {
    NewRow { state: KeptState::Dead, attempts: 50, ..row.clone() }
}

#[tokio::test]
async fn what_is_kept_dead_is_marked_with_it() {
    let (stage, marks, rows) = stage(4).await;
    stage.sql("UPDATE public.published SET status = 2 WHERE id::text LIKE '%3'");
    for former in stage.former() {
        assert_eq!(stage.store.keep(former, &[dead(&rows[0])], &marks).await.unwrap(), None);
    }
    assert_eq!(published(&stage)[0], "1|0|f");
    let given = [dead(&rows[0]), rows[1].clone(), dead(&rows[3])];
    stage.store.keep(stage.holder(), &given, &marks).await.unwrap().unwrap();
    assert_eq!(published(&stage), ["-1|50|t", "1|0|f", "1|0|f", "2|0|f"]);
    // Tables of the settings only.
    stage.store.keep(stage.holder(), &[dead(&rows[2])], &[]).await.unwrap().unwrap();
    let delete = [MarkedTable { mark: Mark::Delete, ..marks[0].clone() }];
    stage.store.keep(stage.holder(), &[dead(&rows[2])], &delete).await.unwrap().unwrap();
    assert_eq!(published(&stage)[2], "1|0|f");
}

#[tokio::test]
async fn a_destination_that_is_given_up_is_marked_with_it_and_revived_by_the_operator() {
    let (stage, marks, rows) = stage(3).await;
    stage.store.keep(stage.holder(), &rows, &marks).await.unwrap().unwrap();
    for former in stage.former() {
        assert_eq!(stage.store.condemn(former, "/queue/a", &marks).await.unwrap(), None);
    }
    assert_eq!(published(&stage), ["1|0|f"; 3]);
    let condemned = stage.store.condemn(stage.holder(), "/queue/a", &marks).await.unwrap();
    assert_eq!((condemned, published(&stage)), (Some(3), vec!["-1|3|t".to_owned(); 3]));

    let slot = stage.database.name();
    let ids: Vec<i64> = stage.rows("id").iter().map(|id| id.parse().unwrap()).collect();
    let which = Which::Ids(vec![ids[1]]);
    let retried = stage.store.retry_undelivered(slot, &which, &marks).await.unwrap();
    assert_eq!((retried.revived, retried.hastened, retried.left), (1, 0, 0));
    assert_eq!(retried.unmarked, None);
    assert_eq!(published(&stage), ["-1|3|t", "1|3|t", "-1|3|t"]);
    // Thrown away while it retries: given up, too.
    let discarded = stage.store.discard_undelivered(slot, &ids[1..2], &marks).await.unwrap();
    assert_eq!((discarded.rows, discarded.unmarked), (1, None));
    assert_eq!(published(&stage)[1], "-1|0|t");
}

#[tokio::test]
async fn a_row_that_somebody_has_locked_is_left() {
    let (stage, marks, rows) = stage(2).await;
    let user = stage.database.client().await;
    let lock = "BEGIN; SELECT FROM public.published WHERE id::text LIKE '%0' FOR UPDATE";
    user.batch_execute(lock).await.unwrap();
    let given = [dead(&rows[0]), dead(&rows[1])];
    stage.store.keep(stage.holder(), &given, &marks).await.unwrap().unwrap();
    assert_eq!(published(&stage), ["1|0|f", "-1|50|t"]);
    assert_eq!(stage.rows("state"), ["dead", "dead"]);
    user.batch_execute("ROLLBACK").await.unwrap();
}

/// Another table may have the name, and rows with the ids.
#[tokio::test]
async fn the_row_of_another_table_is_left() {
    let (stage, marks, rows) = stage(1).await;
    stage.sql(
        "CREATE TABLE public.other (LIKE public.published);
         INSERT INTO public.other SELECT * FROM public.published;
         ALTER TABLE public.published RENAME TO former; ALTER TABLE public.other RENAME TO published",
    );
    stage.store.keep(stage.holder(), &[dead(&rows[0])], &marks).await.unwrap().unwrap();
    assert_eq!(published(&stage), ["1|0|f"]);
    assert_eq!(stage.rows("state"), ["dead"]);
}

/// A dead letter is kept, whatever its table makes of it.
#[tokio::test]
async fn a_table_that_refuses_the_mark_holds_nothing_up() {
    let (stage, marks, rows) = stage(3).await;
    stage.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER no BEFORE UPDATE ON public.published FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let kept = stage.store.keep(stage.holder(), &[dead(&rows[0])], &marks).await.unwrap();
    assert!(kept.is_some());
    stage.store.keep(stage.holder(), &rows[1..2], &marks).await.unwrap().unwrap();
    let condemned = stage.store.condemn(stage.holder(), "/queue/a", &marks).await.unwrap();
    assert_eq!((condemned, stage.rows("state")), (Some(1), vec!["dead".to_owned(); 2]));
    let slot = stage.database.name();
    let ids: Vec<i64> = stage.rows("id").iter().map(|id| id.parse().unwrap()).collect();
    stage.sql(
        "ALTER TABLE public.published DISABLE TRIGGER no; UPDATE public.published SET status = -1",
    );
    stage.sql("ALTER TABLE public.published ENABLE TRIGGER no");
    let retried = stage.store.retry_undelivered(slot, &Which::All, &marks).await.unwrap();
    assert_eq!(retried.revived, 2);
    assert!(retried.unmarked.is_some_and(|why| why.contains("PostgreSQL says: no")));
    let discarded = stage.store.discard_undelivered(slot, &ids, &marks).await.unwrap();
    assert_eq!(discarded.rows, 2);
    // There nothing was to be changed.
    assert_eq!(discarded.unmarked, None);
}
