/* source_mark - asks the database what mark.h wants to know, inside the transactions that run anyway. */
#include "base/clock.h"
#include "store/source_state.h"
#include "store/sql.h"

uint64_t source_filter(const struct source *source, const struct source_request *request)
{
    struct bytes resting = bytes_of(request->resting);
    uint64_t filter = bytes_hash(resting) * 31 +
                      resting.len; /* names are the producers': they may be chosen for their hash */
    filter = filter * 31 + bytes_hash(bytes_of(text_get(&source->paused)));
    filter = filter * 31 + bytes_hash(bytes_of(text_get(&source->paused_patterns)));
    filter = filter * 31 + bytes_hash(bytes_of(request->only));
    filter = filter * 31 + bytes_hash(bytes_of(source->options.include));
    return filter * 31 + bytes_hash(bytes_of(source->options.exclude));
}

int source_send_mark_sequence(struct source *source, enum mark_place place, uint64_t filter, bool idle,
                              struct err *err)
{
    source->asking = mark_ask(source->options.mark, place, filter, idle, clock_now_ms(), &source->question);
    return source->asking ? pg_send(source->pg, sql_mark_sequence, 0, NULL, false, err) : 0;
}

int source_send_mark_rows(struct source *source, const struct source_request *request, struct err *err)
{
    const struct mark_question *question = &source->question;
    char all[NUMBER_BYTES];
    char filtered[NUMBER_BYTES];
    char highest[NUMBER_BYTES];
    if (!source->asking) {
        return 0;
    }
    source_put_number(all, question->all);
    source_put_number(filtered, question->filtered);
    source_put_number(highest, question->highest);
    const char *const values[] = {all,
                                  filtered,
                                  highest,
                                  request->resting,
                                  source->options.include,
                                  source->options.exclude,
                                  text_get(&source->paused),
                                  source->options.ordered ? "t" : "f",
                                  text_get(&source->paused_patterns),
                                  request->only};
    return pg_send(source->pg, sql_mark_rows, 10, values, false, err);
}

int source_read_mark_sequence(struct source *source, int64_t *highest, struct err *err)
{
    struct pg_rows *rows = NULL;
    *highest = -1;
    if (!source->asking) {
        return 0;
    }
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return -1;
    }
    bool usable = pg_number(rows, 0, 1, 0) == 1 && pg_number(rows, 0, 2, 0) == 1;
    *highest = usable ? pg_number(rows, 0, 0, 0) : -1;
    pg_rows_free(rows);
    return 0;
}

int source_read_mark_rows(struct source *source, int64_t highest, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (!source->asking) {
        return 0;
    }
    if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return -1;
    }
    const struct mark_answer answer = {
        .highest = highest,
        .xid = pg_number(rows, 0, 0, 0),
        .xmin = pg_number(rows, 0, 1, 0),
        .first = pg_number(rows, 0, 2, MARK_NONE),
        .first_filtered = pg_number(rows, 0, 3, MARK_NONE),
    };
    mark_learn(source->options.mark, &source->question, &answer);
    pg_rows_free(rows);
    return 0;
}

void source_check_full_poll(struct source *source, int64_t first_seq)
{
    if (source->full_poll && mark_contradicted(source->options.mark, first_seq)) {
        LOG(source->options.log, LOG_WARNING,
            "a row below the low watermark was found: was seq assigned by hand, or the sequence cached?",
            log_number("seq", first_seq));
    }
}
