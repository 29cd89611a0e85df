/*
 * test_chat.c - turns, branches, models and full contexts, over an engine that plays a script.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "chat/chat.h"
#include "fake_engine.h"
#include "store/db.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ok.h"

static char dir[64], path[128];
static struct store *store;
static struct config config;
static struct chat *chat;

/* What happened since the last clear. */
static struct {
    int n[EV_STORE_FAILED + 1];
    struct buf text, tokens;
    struct event result;
    struct err err;
} seen;

static void clear_seen(void) {
    buf_release(&seen.text);
    buf_release(&seen.tokens);
    memset(&seen, 0, sizeof seen);
}

static void note(const struct chat_event *ev) {
    seen.n[ev->type]++;
    if (ev->type == EV_TEXT)
        buf_adds(&seen.text, ev->text);
    if (ev->type == EV_TOKEN)
        buf_adds(&seen.tokens, ev->text);
    if (ev->type == EV_DONE)
        seen.result = *ev->result;
    if (ev->err.code != ST_OK)
        seen.err = ev->err;
}

/* Fetches events as a caller does, until what is asked for has come. */
static void fetch(bool (*until)(void)) {
    int64_t deadline = clock_us() + 20 * 1000000LL;
    while (!until()) {
        struct pollfd p = {.fd = chat_fd(chat), .events = POLLIN};
        poll(&p, 1, 50);
        struct chat_event ev;
        while (chat_poll(chat, &ev)) {
            note(&ev);
            chat_event_release(&ev);
        }
        if (clock_us() > deadline)
            fail_msg("nothing comes any more");
    }
}

static bool is_idle(void) {
    return !chat_busy(chat);
}
static bool is_loaded(void) {
    return chat_model_state(chat) != MODEL_LOADING;
}
static bool is_ready(void) {
    return chat_model_state(chat) == MODEL_READY;
}
/* One that is not used any more is closed in the background. */
static bool has_one_engine(void) {
    return fake_engines() == 1;
}
static bool has_text(void) {
    return seen.text.len > 0;
}
static bool has_store_failure(void) {
    return seen.n[EV_STORE_FAILED] > 0;
}

static void load(const char *name) {
    OK(chat_load_model(chat, name, &e));
    fetch(is_loaded);
    assert_int_equal(chat_model_state(chat), MODEL_READY);
}

static int setup_without_model(void **state) {
    (void)state;
    fake_reset();
    strcpy(dir, "/tmp/llmchat-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    setenv("LLMCHAT_HOME", dir, 1);
    snprintf(path, sizeof path, "%s/chats.db", dir);
    config_init(&config);
    OK(store_open(path, &store, &e));
    chat = chat_new(store, &config);
    return 0;
}

static int setup(void **state) {
    if (setup_without_model(state))
        return -1;
    load("smol");
    clear_seen();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    chat_free(chat);
    store_close(store);
    config_release(&config);
    clear_seen();
    assert_int_equal(fake_sessions(), 0);
    assert_int_equal(fake_engines(), 0);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void turn(const char *text) {
    OK(chat_send(chat, text, &e));
    fetch(is_idle);
}

static const struct message *at(size_t i) {
    const struct message_list *l = chat_messages(chat);
    assert_true(i < l->n);
    return &l->v[i];
}

static const struct message *last(void) {
    return at(chat_messages(chat)->n - 1);
}

/* -- a turn -- */

static void states_are_saved_of_stored_conversations_only(void **state) {
    (void)state;
    assert_string_equal(fake.kv_dir, "states");
    assert_int_equal(fake.kv_dir_bytes, config.kv_cache);
    turn("one");
    chat_free(chat);
    assert_int_equal(fake.n_kept, 1);
    store_close(store);
    OK(store_open(":memory:", &store, &e));
    assert_int_equal(fake.kv_type, KV_AUTO);
    config.kv_type = KV_BF16;
    config.kv_cache = 0; /* and not at all when the configuration says so */
    chat = chat_new(store, &config);
    load("smol");
    assert_null(fake.kv_dir);
    assert_int_equal(fake.kv_type, KV_BF16);
    turn("two");
    load("smol"); /* lets go of all sessions */
    assert_int_equal(fake.n_kept, 1);
}

static void forgotten_conversation_is_not_saved(void **state) {
    (void)state;
    turn("one");
    int64_t id = chat_id(chat);
    OK(chat_open(chat, 0, &e));
    turn("two");
    chat_forget(chat, id);
    assert_int_equal(fake.forgotten, id);
    assert_int_equal(fake_sessions(), 1);
    load("smol");
    assert_int_equal(fake.n_kept, 1); /* the other one */
}

/* By another window, which has removed its states. */
static void deleted_conversation_is_not_saved(void **state) {
    (void)state;
    turn("one");
    OK(store_conv_delete(store, chat_id(chat), &e));
    OK(chat_open(chat, 0, &e));
    turn("two");
    load("smol");
    assert_int_equal(fake.n_kept, 1); /* the other one */
    assert_int_equal(fake.kept, chat_id(chat));
}

static void states_are_forgotten_without_a_model(void **state) {
    (void)state;
    chat_forget(chat, 17);
    assert_int_equal(fake.forgotten, 17);
}

static void turn_is_stored_with_all_its_figures(void **state) {
    (void)state;
    turn("How do tides work?");
    assert_string_equal(seen.text.p, "one two three");
    assert_int_equal(seen.n[EV_DONE], 1);
    assert_int_equal(seen.n[EV_TOKEN], 0);
    assert_int_equal(chat_messages(chat)->n, 2);
    struct message_list l;
    OK(store_msg_path(store, chat_id(chat), 0, &l, &e));
    assert_int_equal(l.n, 2);
    assert_string_equal(l.v[0].text, "How do tides work?");
    assert_string_equal(l.v[1].text, "one two three");
    assert_int_equal(l.v[1].state, MSG_COMPLETE);
    assert_string_equal(l.v[1].finish, "stop");
    assert_string_equal(l.v[1].model, "smol");
    assert_int_equal(l.v[1].completion_tok, 3);
    assert_int_equal(l.v[1].seed, 42);
    assert_non_null(strstr(l.v[1].settings_json, "\"temperature\":0.7"));
    message_list_release(&l);
    assert_string_equal(last()->text, "one two three");
    assert_int_equal(last()->state, MSG_COMPLETE);
    assert_string_equal(chat_title(chat), "How do tides work?");
}

static void new_conversation_has_no_row_before_its_first_message(void **state) {
    (void)state;
    struct conversation_list l;
    OK(chat_set(chat, "temperature", "0.1", &e));
    OK(chat_set_system(chat, "Be kind.", &e));
    OK(chat_set_draft(chat, "", &e));
    OK(store_conv_list(store, 0, &l, &e));
    assert_int_equal(l.n, 0);
    conversation_list_release(&l);
    assert_int_equal(chat_id(chat), 0);
    turn("hi");
    struct conversation c;
    OK(store_conv_get(store, chat_id(chat), &c, &e));
    assert_string_equal(c.system, "Be kind.");
    assert_non_null(strstr(c.settings_json, "\"temperature\":0.1"));
    assert_string_equal(c.model, "smol");
    conversation_release(&c);
    assert_string_equal(fake_prompt(), "system: Be kind.\nuser: hi\nassistant: ");
}

static void tokens_are_told_when_wanted(void **state) {
    (void)state;
    chat_want_tokens(chat, true);
    turn("hi");
    assert_int_equal(seen.n[EV_TOKEN], 3);
    assert_string_equal(seen.tokens.p, "one two three");
    assert_string_equal(seen.text.p, "one two three");
}

static void message_is_kept_without_a_model(void **state) {
    (void)state;
    assert_int_equal(chat_send(chat, "hello", &e), ST_NOT_FOUND);
    assert_int_equal(chat_messages(chat)->n, 1);
    load("smol");
    OK(chat_regenerate(chat, at(0)->id, &e)); /* a message without a reply gets one */
    fetch(is_idle);
    assert_int_equal(chat_messages(chat)->n, 2);
    assert_string_equal(last()->text, "one two three");
}

static void empty_message_and_second_turn_are_refused(void **state) {
    (void)state;
    assert_int_equal(chat_send(chat, " \n", &e), ST_USAGE);
    assert_int_equal(chat_id(chat), 0);
    fake.token_us = 3000;
    fake.endless = true;
    OK(chat_send(chat, "a", &e));
    assert_int_equal(chat_send(chat, "b", &e), ST_BUSY);
    chat_stop(chat);
    fetch(is_idle);
}

static void stopped_reply_is_kept_and_marked(void **state) {
    (void)state;
    fake.token_us = 1000;
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    fetch(has_text);
    assert_true(strlen(last()->text) > 0); /* it grows where it is shown */
    assert_int_equal(last()->state, MSG_STREAMING);
    chat_stop(chat);
    fetch(is_idle);
    assert_int_equal(seen.n[EV_DONE], 1);
    assert_int_equal(seen.result.finish, FINISH_CANCEL);
    struct message m;
    OK(store_msg_get(store, last()->id, &m, &e));
    assert_int_equal(m.state, MSG_STOPPED);
    assert_string_equal(m.text, seen.text.p);
    assert_string_equal(last()->text, seen.text.p);
    message_release(&m);
}

static void failed_reply_is_kept_and_told(void **state) {
    (void)state;
    fake.fail_after = 2;
    turn("a");
    assert_int_equal(seen.n[EV_FAILED], 1);
    assert_string_equal(seen.err.msg, "the fake engine failed");
    assert_int_equal(last()->state, MSG_FAILED);
    assert_string_equal(last()->text, "one two ");
    fake.fail_after = -1;
    fake.generate_fails = ST_INTERNAL;
    assert_int_equal(chat_send(chat, "b", &e), ST_INTERNAL);
    assert_false(chat_busy(chat));
    assert_int_equal(last()->state, MSG_FAILED);
    fake.generate_fails = ST_OK;
    turn("c"); /* the failed, empty reply is not shown to the model; neighbours of one role are joined */
    assert_string_equal(fake_prompt(), "user: a\nassistant: one two \nuser: b\n\nc\nassistant: ");
}

static void streaming_reply_is_saved_within_250_ms(void **state) {
    (void)state;
    fake.token_us = 2000;
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    /* Whatever is older than 250 ms must be in the store; what is known for certain is the text of 250 ms ago. */
    char old[8192] = "";
    int64_t start = clock_us(), taken = 0;
    int checks = 0;
    while (clock_us() - start < 900000) {
        struct pollfd p = {.fd = chat_fd(chat), .events = POLLIN};
        poll(&p, 1, 250);
        struct chat_event ev;
        while (chat_poll(chat, &ev)) {
            note(&ev);
            chat_event_release(&ev);
        }
        int64_t now = clock_us();
        if (taken && now - taken >= 250000) {
            struct message m;
            OK(store_msg_get(store, last()->id, &m, &e));
            assert_int_equal(m.state, MSG_STREAMING);
            assert_true(strlen(m.text) >= strlen(old));
            assert_memory_equal(m.text, old, strlen(old));
            message_release(&m);
            taken = 0;
            checks++;
        }
        if (!taken && seen.text.len && seen.text.len < sizeof old) {
            strcpy(old, seen.text.p);
            taken = now;
        }
    }
    assert_true(checks >= 2);
    chat_stop(chat);
    fetch(is_idle);
}

static void failing_save_is_told_and_made_good(void **state) {
    (void)state;
    fake.token_us = 1000;
    fake.reply = "a considerably-long-word-to-fill-pages-with-text-until-the-database-may-not-grow ";
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    sqlite3_stmt *q;
    char sql[64];
    assert_int_equal(sqlite3_prepare_v2(store->db, "PRAGMA page_count", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", sqlite3_column_int(q, 0));
    sqlite3_finalize(q);
    OK(db_script(store, sql, &e));
    fetch(has_store_failure);
    assert_non_null(strstr(seen.err.msg, "the disk is full"));
    chat_stop(chat);
    fetch(is_idle);
    assert_true(seen.text.len > 0);
    assert_string_equal(last()->text, seen.text.p);
    assert_int_equal(seen.n[EV_STORE_FAILED], 1); /* told once, not at every try */
    assert_true(chat_unsaved(chat));
    OK(db_script(store, "PRAGMA max_page_count = 1000000", &e));
    int64_t id = last()->id;
    for (int i = 0; i < 100; i++) { /* tried again every second */
        struct chat_event ev;
        struct message m;
        assert_false(chat_poll(chat, &ev));
        OK(store_msg_get(store, id, &m, &e));
        enum msg_state st = m.state;
        if (st == MSG_STOPPED)
            assert_string_equal(m.text, seen.text.p);
        message_release(&m);
        if (st == MSG_STOPPED) {
            assert_false(chat_unsaved(chat));
            return;
        }
        usleep(30000);
    }
    fail_msg("the reply was never saved");
}

static void second_turn_computes_only_what_is_new(void **state) {
    (void)state;
    turn("first");
    int64_t a = chat_id(chat);
    OK(chat_open(chat, 0, &e));
    turn("in another one");
    assert_int_equal(seen.result.cached_tok, 0); /* a session of its own */
    OK(chat_open(chat, a, &e));
    turn("second");
    assert_int_equal(seen.result.cached_tok,
                     strlen("user: first\nassistant: one two three"));
    int used, ctx;
    chat_context(chat, &used, &ctx);
    assert_int_equal(ctx, 4096);
    assert_int_equal(used, seen.result.prompt_tok + seen.result.completion_tok);
    assert_int_equal(fake_sessions(), 2);
}

static void sessions_are_bounded(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        OK(chat_open(chat, 0, &e));
        turn("x");
    }
    assert_int_equal(fake_sessions(), 8);
}

static void opening_another_conversation_keeps_what_came(void **state) {
    (void)state;
    fake.token_us = 1000;
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    fetch(has_text);
    int64_t a = chat_id(chat), reply = last()->id;
    OK(chat_open(chat, 0, &e));
    assert_false(chat_busy(chat));
    struct chat_event ev;
    while (chat_poll(chat, &ev)) { /* nothing of the old turn is told any more */
        assert_true(ev.type != EV_TEXT && ev.type != EV_DONE);
        chat_event_release(&ev);
    }
    struct message m;
    OK(store_msg_get(store, reply, &m, &e));
    assert_int_equal(m.state, MSG_STOPPED);
    assert_true(strlen(m.text) > 0);
    message_release(&m);
    OK(chat_open(chat, a, &e));
    assert_int_equal(chat_messages(chat)->n, 2);
}

static void closing_while_it_streams_keeps_what_came(void **state) {
    (void)state;
    fake.token_us = 1000;
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    fetch(has_text);
    int64_t reply = last()->id;
    chat_free(chat);
    struct message m;
    OK(store_msg_get(store, reply, &m, &e));
    assert_int_equal(m.state, MSG_STOPPED);
    assert_true(strlen(m.text) > 0);
    message_release(&m);
    chat = chat_new(store, &config);
}

/* -- branches -- */

static void regenerate_and_edit_make_branches(void **state) {
    (void)state;
    turn("q1");
    int64_t u1 = at(0)->id, a1 = at(1)->id;
    fake.reply = "again";
    OK(chat_regenerate(chat, a1, &e));
    fetch(is_idle);
    assert_int_equal(chat_messages(chat)->n, 2);
    assert_string_equal(at(1)->text, "again");
    assert_int_equal(at(1)->sibling, 2);
    assert_int_equal(at(1)->n_sibling, 2);
    OK(chat_switch_branch(chat, at(1)->id, -1, &e));
    assert_int_equal(at(1)->id, a1);
    assert_int_equal(chat_switch_branch(chat, a1, -1, &e), ST_NOT_FOUND);
    OK(chat_edit(chat, u1, "q1 better", &e));
    fetch(is_idle);
    assert_string_equal(at(0)->text, "q1 better");
    assert_int_equal(at(0)->n_sibling, 2);
    assert_string_equal(fake_prompt(), "user: q1 better\nassistant: ");
    assert_int_equal(chat_edit(chat, at(1)->id, "x", &e), ST_USAGE);
    OK(chat_switch_branch(chat, at(0)->id, -1, &e));
    assert_int_equal(at(0)->id, u1);
    /* A regenerate that can't begin leaves the branch that was shown. */
    int64_t leaf = last()->id;
    fake.generate_fails = ST_INTERNAL;
    assert_int_equal(chat_regenerate(chat, leaf, &e), ST_INTERNAL);
    assert_int_equal(last()->id, leaf);
    assert_string_equal(chat_title(chat), "q1");
}

/* -- drafts, titles, settings -- */

static void draft_is_kept_and_taken_back(void **state) {
    (void)state;
    OK(chat_set_draft(chat, "half a th", &e));
    int64_t id = chat_id(chat);
    assert_int_not_equal(id, 0);
    OK(chat_open(chat, 0, &e));
    OK(chat_open(chat, id, &e));
    assert_string_equal(chat_draft(chat), "half a th");
    turn("half a thought");
    assert_string_equal(chat_draft(chat), "");
    OK(chat_open(chat, 0, &e));
    OK(chat_set_draft(chat, "x", &e));
    int64_t empty = chat_id(chat);
    OK(chat_set_draft(chat, "", &e));
    OK(chat_open(chat, id, &e)); /* nothing is left of a draft that was taken back */
    struct conversation c;
    OK(store_conv_get(store, empty, &c, &e));
    assert_true(c.deleted);
    conversation_release(&c);
}

static void title_is_cut_between_words(void **state) {
    (void)state;
    turn("\n  Please explain to me in great detail how the tides of the oceans come to be\nand more");
    assert_string_equal(chat_title(chat),
                        "Please explain to me in great detail how the tides of the…");
    OK(chat_open(chat, 0, &e));
    turn("日本語の長い文章は単語の間に空白がないので六十セルで切られるはずですがどうでしょうか");
    assert_string_equal(chat_title(chat),
                        "日本語の長い文章は単語の間に空白がないので六十セルで切られ…");
    OK(chat_open(chat, 0, &e));
    turn("\x1b[31mred\tflag");
    assert_null(strchr(chat_title(chat), '\x1b'));
}

static void settings_belong_to_their_conversation(void **state) {
    (void)state;
    turn("a");
    int64_t a = chat_id(chat);
    OK(chat_set(chat, "top-k", "7", &e));
    OK(chat_set(chat, "seed", "9", &e));
    assert_int_equal(chat_set(chat, "top_k", "-3", &e), ST_USAGE);
    assert_int_equal(chat_set(chat, "warmth", "1", &e), ST_USAGE);
    OK(chat_open(chat, 0, &e));
    assert_int_equal(chat_settings(chat)->sampling.top_k, 40);
    OK(chat_open(chat, a, &e));
    assert_int_equal(chat_settings(chat)->sampling.top_k, 7);
    turn("b");
    assert_int_equal(last()->seed, 9);
}

static void other_process_is_seen_after_reload(void **state) {
    (void)state;
    struct store *other;
    int64_t id;
    turn("a");
    OK(store_open(path, &other, &e));
    OK(store_msg_add(other, chat_id(chat),
                     &(struct message){.parent = last()->id, .text = (char[]){"from elsewhere"}},
                     &id, &e));
    store_close(other);
    OK(chat_reload(chat, &e));
    assert_int_equal(last()->id, id);
}

/* -- models -- */

static void failed_load_leaves_the_old_model(void **state) {
    (void)state;
    OK(chat_load_model(chat, "missing", &e));
    int64_t deadline = clock_us() + 10000000;
    bool failed = false;
    while (!failed && clock_us() < deadline) {
        struct chat_event ev;
        while (chat_poll(chat, &ev)) {
            if (ev.type == EV_MODEL && chat_model_state(chat) == MODEL_FAILED) {
                assert_string_equal(ev.err.msg, "missing: no such model");
                failed = true;
            }
            chat_event_release(&ev);
        }
        usleep(1000);
    }
    assert_true(failed);
    assert_string_equal(chat_model(chat), "smol");
    turn("still there?");
    assert_int_equal(chat_model_state(chat), MODEL_READY);
}

/* Nothing of the reply before, which may have been another model's. */
static void rates_are_those_of_the_reply_and_its_model(void **state) {
    (void)state;
    double decode, prefill;
    int reused;
    turn("How do tides work?");
    turn("And why?");
    chat_rates(chat, &decode, &prefill, &reused);
    assert_true(decode > 0 && prefill > 0 && reused > 0);
    fake.token_us = 200000;
    OK(chat_send(chat, "and so?", &e));
    chat_rates(chat, &decode, &prefill, &reused);
    assert_true(decode == 0 && prefill == 0 && reused == 0);
    chat_stop(chat);
    fetch(is_idle);
    fake.token_us = 0;
    turn("again");
    load("other");
    chat_rates(chat, &decode, &prefill, &reused);
    assert_true(decode == 0 && prefill == 0 && reused == 0);
}

static void model_is_switched_between_turns(void **state) {
    (void)state;
    fake.token_us = 1000;
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    fetch(has_text);
    OK(chat_load_model(chat, "other", &e));
    usleep(50000);
    struct chat_event ev;
    while (chat_poll(chat, &ev))
        chat_event_release(&ev);
    assert_true(chat_busy(chat)); /* the reply goes on with the model that it began with */
    assert_string_equal(chat_model(chat), "smol");
    chat_stop(chat);
    fetch(is_idle);
    fetch(is_loaded);
    assert_string_equal(chat_model(chat), "other");
    fetch(has_one_engine);
    fake.endless = false;
    turn("and now?");
    assert_string_equal(last()->model, "other");
}

static void a_model_that_has_the_room_on_a_gpu_makes_way(void **state) {
    (void)state;
    static const enum device devices[] = {DEVICE_AUTO, DEVICE_CUDA};
    fake.gpu = true;
    for (int i = 0; i < 2; i++) {
        config.device = devices[i];
        load("first");
        turn("on the GPU?");
        assert_string_equal(chat_engine_info(chat)->device, "cuda");
        fake.token_us = 1000;
        fake.endless = true;
        clear_seen();
        OK(chat_send(chat, "go on", &e));
        fetch(has_text);
        OK(chat_load_model(chat, "second", &e));
        usleep(50000);
        struct chat_event ev;
        while (chat_poll(chat, &ev))
            chat_event_release(&ev);
        assert_true(chat_busy(chat)); /* not in the middle of a reply */
        assert_true(chat_model_waits(chat));
        chat_stop(chat);
        fetch(is_idle);
        fetch(is_loaded);
        assert_int_equal(chat_model_state(chat), MODEL_READY);
        assert_string_equal(chat_model(chat), "second");
        assert_string_equal(chat_engine_info(chat)->device, "cuda");
        assert_string_equal(chat_engine_info(chat)->device_note, "");
        fake.token_us = 0;
        fake.endless = false;
        turn("and now?");
        assert_string_equal(last()->model, "second");
    }
    fake.fails_on_gpu = "third"; /* with all the room */
    OK(chat_load_model(chat, "third", &e));
    fetch(is_ready);
    assert_int_equal(seen.err.code, ST_DEVICE); /* was told */
    assert_string_equal(chat_model(chat), "second");
    assert_string_equal(chat_engine_info(chat)->device, "cuda");
    turn("still there?");
    fake.load_fails = true; /* not for lack of room */
    OK(chat_load_model(chat, "broken", &e));
    fetch(is_loaded);
    assert_int_equal(seen.err.code, ST_FORMAT);
    assert_string_equal(chat_model(chat), "second");
    turn("still there?");
    assert_string_equal(chat_engine_info(chat)->device, "cuda");
}

/* Several GPUs are asked for until the CPU goes on for one that failed. */
static void gpus_are_not_asked_for_once_the_cpu_goes_on(void **state) {
    (void)state;
    config.device = DEVICE_CUDA;
    config.tensor_parallel = 4;
    load("big");
    assert_int_equal(fake.device, DEVICE_CUDA);
    assert_int_equal(fake.tensor_parallel, 4);
    OK(chat_load_on_cpu(chat, &e));
    fetch(is_loaded);
    assert_int_equal(fake.device, DEVICE_CPU);
    assert_int_equal(fake.tensor_parallel, 1);
}

static void touch(const char *file, time_t at) {
    const struct timespec t[2] = {{.tv_sec = at}, {.tv_sec = at}};
    OK(file_write_atomic(file, "model", 5, &e));
    assert_int_equal(utimensat(AT_FDCWD, file, t, 0), 0);
}

/* Made again with --force, or cut: then choosing it again loads it again. */
static void a_model_that_changed_on_disk_is_told_from_the_loaded_one(void **state) {
    (void)state;
    char file[sizeof dir + 2];
    snprintf(file, sizeof file, "%s/m", dir);
    assert_false(chat_model_changed(chat)); /* "smol": a name without a file */
    touch(file, 1000);
    load(file);
    assert_false(chat_model_changed(chat));
    touch(file, 2000);
    assert_true(chat_model_changed(chat));
    load(file);
    assert_false(chat_model_changed(chat));
    assert_int_equal(truncate(file, 2), 0);
    assert_true(chat_model_changed(chat));
    load(file);
    assert_int_equal(unlink(file), 0);
    assert_false(chat_model_changed(chat));
}

static void newest_load_counts(void **state) {
    (void)state;
    fake.load_hangs = true;
    OK(chat_load_model(chat, "slow", &e));
    OK(chat_load_model(chat, "slower", &e));
    usleep(20000);
    assert_int_equal(chat_model_state(chat), MODEL_LOADING);
    fake.load_hangs = false;
    fetch(is_loaded);
    assert_string_equal(chat_model(chat), "slower");
    fake.load_hangs = true;
    OK(chat_load_model(chat, "never", &e)); /* chat_free in teardown must not wait for it */
}

static void model_is_chosen_in_order(void **state) {
    (void)state;
    char *name;
    fake.installed = "";
    assert_int_equal(chat_choose_model(chat, NULL, &name, &e), ST_NOT_FOUND);
    assert_non_null(strstr(e.msg, "llmchat create"));
    fake.installed = "aaa smol zzz";
    OK(chat_choose_model(chat, NULL, &name, &e)); /* none used yet: the newest */
    assert_string_equal(name, "zzz");
    free(name);
    OK(store_setting_set(store, "last_model", "smol", &e));
    OK(chat_choose_model(chat, NULL, &name, &e));
    assert_string_equal(name, "smol");
    free(name);
    OK(store_setting_set(store, "last_model", "removed", &e));
    OK(chat_choose_model(chat, NULL, &name, &e));
    assert_string_equal(name, "zzz");
    free(name);
    int64_t id;
    OK(store_conv_new(store, "t", "aaa", &id, &e));
    OK(chat_open(chat, id, &e));
    OK(chat_choose_model(chat, NULL, &name, &e));
    assert_string_equal(name, "aaa");
    free(name);
    config.model = xstrdup("configured");
    OK(chat_choose_model(chat, NULL, &name, &e));
    assert_string_equal(name, "configured");
    free(name);
    OK(chat_choose_model(chat, "wanted", &name, &e));
    assert_string_equal(name, "wanted");
    free(name);
}

/* -- full contexts -- */

static int setup_small(void **state) {
    if (setup_without_model(state))
        return -1;
    fake.ctx_tok = 1200;
    load("smol");
    clear_seen();
    return 0;
}

/* Turns until one more does not fit; the last one is stored and has no reply. */
static void fill(const char *text) {
    for (int i = 0; i < 50; i++) {
        enum status st = chat_send(chat, text, &e);
        if (st != ST_OK) {
            assert_int_equal(st, ST_CONTEXT_FULL);
            return;
        }
        fetch(is_idle);
    }
    fail_msg("the context never filled");
}

#define LINE "forty characters of text fill this line."

static void full_context_asks_and_drops(void **state) {
    (void)state;
    OK(chat_set_system(chat, "SYS", &e));
    fill(LINE);
    assert_int_equal(last()->role, ROLE_USER); /* stored, not lost */
    assert_non_null(strstr(e.msg, "1200"));
    int requests = fake_requests();
    size_t n = chat_messages(chat)->n;
    OK(chat_resolve(chat, OVERFLOW_DROP, &e));
    fetch(is_idle);
    assert_int_equal(fake_requests(), requests + 1);
    int dropped = chat_dropped(chat);
    assert_true(dropped > 0 && dropped % 2 == 0);
    assert_int_equal(chat_messages(chat)->n, n + 1); /* nothing is deleted */
    assert_memory_equal(fake_prompt(), "system: SYS\nuser: forty", 23);
    assert_true(strlen(fake_prompt()) <= 1200 - 256 - 300);
    /* The same after a restart. */
    int64_t id = chat_id(chat);
    chat_free(chat);
    chat = chat_new(store, &config);
    OK(chat_open(chat, id, &e));
    assert_int_equal(chat_dropped(chat), dropped);
    assert_int_equal(chat_resolve(chat, OVERFLOW_DROP, &e), ST_USAGE);
}

static void full_context_can_be_left_as_it_is(void **state) {
    (void)state;
    fill(LINE);
    size_t n = chat_messages(chat)->n;
    OK(chat_resolve(chat, OVERFLOW_STOP, &e));
    assert_int_equal(chat_messages(chat)->n, n);
    assert_int_equal(chat_dropped(chat), 0);
    assert_false(chat_busy(chat));
}

static void configured_drop_never_asks(void **state) {
    (void)state;
    config.context_full = OVERFLOW_DROP;
    for (int i = 0; i < 25; i++)
        turn(LINE);
    assert_int_equal(seen.n[EV_DONE], 25);
    assert_true(chat_dropped(chat) > 0);
    assert_int_equal(chat_messages(chat)->n, 50);
}

static void configured_stream_sends_everything(void **state) {
    (void)state;
    config.context_full = OVERFLOW_STREAM;
    OK(chat_set_system(chat, "SYS", &e));
    for (int i = 0; i < 25; i++)
        turn(LINE);
    assert_int_equal(seen.n[EV_DONE], 25);
    assert_int_equal(chat_dropped(chat), 0);
    assert_true(fake.stream);
    assert_int_equal(fake.keep_tok, strlen("system: SYS\nuser: "));
    assert_memory_equal(fake_prompt(), "system: SYS\nuser: forty", 23);
    size_t all = strlen(fake_prompt());
    assert_true(all > 1200);
    int used, ctx;
    chat_context(chat, &used, &ctx);
    assert_int_equal(used, 900 + 3); /* what is seen, and the answer */
    assert_int_equal(chat_left_out(chat), all - 900);
    /* a line of the prompt is a message, and a token a byte */
    const char *end = fake_prompt() + strlen("system: SYS\nuser: ") + all - 900;
    int whole = -1;
    for (const char *p = fake_prompt();
         (p = strchr(p, '\n')) && p + 1 + strlen("assistant: ") <= end; p++)
        whole++;
    assert_true(whole > 3);
    assert_int_equal(chat_forgotten(chat), whole);
    /* before anything is asked again it is known roughly */
    int64_t id = chat_id(chat);
    chat_free(chat);
    chat = chat_new(store, &config);
    OK(chat_open(chat, id, &e));
    load("smol");
    chat_context(chat, &used, &ctx);
    assert_int_equal(used, 1200);
    assert_true(chat_left_out(chat) > 0);
    assert_in_range(chat_forgotten(chat), 1, whole);
    /* the draft, too */
    config.prefill_draft = true;
    chat_prefill_draft(chat, "and one more line");
    assert_true(strlen(fake_guess()) > all);
}

static void stream_is_chosen_until_another_conversation(void **state) {
    (void)state;
    fill(LINE);
    OK(chat_resolve(chat, OVERFLOW_STREAM, &e));
    fetch(is_idle);
    assert_int_equal(last()->role, ROLE_ASSISTANT);
    assert_true(fake.stream);
    assert_int_equal(chat_dropped(chat), 0);
    turn(LINE); /* nobody asks again */
    int64_t id = chat_id(chat);
    OK(chat_reload(chat, &e));
    turn(LINE);
    while (chat_left_out(chat) == 0)
        turn(LINE);
    assert_true(chat_forgotten(chat) > 0);
    OK(chat_open(chat, 0, &e));
    turn("short");
    assert_int_equal(chat_forgotten(chat), 0);
    assert_false(fake.stream);
    OK(chat_open(chat, id, &e));
    assert_int_equal(chat_send(chat, LINE, &e), ST_CONTEXT_FULL);
}

static void answer_that_streams_ends_by_its_own_limit_alone(void **state) {
    (void)state;
    config.context_full = OVERFLOW_STREAM;
    OK(chat_set(chat, "max_tokens", "-1", &e));
    fake.endless = true;
    OK(chat_send(chat, "go on", &e));
    fetch(has_text);
    assert_int_equal(fake.max_tok, -1);
    chat_stop(chat);
    fetch(is_idle);
    assert_int_equal(seen.n[EV_CONTEXT_FULL], 0);
    /* so a message alone may fill the context, but is never cut */
    char text[1300];
    memset(text, 'x', sizeof text);
    text[1200 - 1 - strlen("user: \nassistant: ")] = 0;
    fake.endless = false;
    OK(chat_edit(chat, at(0)->id, text, &e));
    fetch(is_idle);
    strcat(text, "x");
    assert_int_equal(chat_edit(chat, at(0)->id, text, &e), ST_LIMIT);
}

static void model_that_cannot_stream_asks_for_the_other_ways(void **state) {
    (void)state;
    config.context_full = OVERFLOW_STREAM;
    fake.cannot_stream = true;
    turn("short");
    assert_false(fake.stream);
    fill(LINE);
    assert_non_null(strstr(e.msg, "it has learned positions"));
    assert_int_equal(chat_resolve(chat, OVERFLOW_STREAM, &e), ST_UNSUPPORTED);
    assert_int_equal(chat_can_stream(chat, &e), ST_UNSUPPORTED);
    OK(chat_resolve(chat, OVERFLOW_DROP, &e)); /* is still to be decided */
    fetch(is_idle);
    assert_int_equal(last()->role, ROLE_ASSISTANT);
    assert_true(chat_dropped(chat) > 0);
}

static void configured_stop_stores_nothing(void **state) {
    (void)state;
    config.context_full = OVERFLOW_STOP;
    enum status st;
    int i = 0;
    while ((st = chat_send(chat, LINE, &e)) == ST_OK && i++ < 50)
        fetch(is_idle);
    assert_int_equal(st, ST_LIMIT);
    assert_int_equal(last()->role, ROLE_ASSISTANT);
}

static void summary_replaces_older_turns(void **state) {
    (void)state;
    OK(chat_set_system(chat, "SYS", &e));
    fill(LINE);
    size_t n = chat_messages(chat)->n;
    int64_t question = last()->id;
    fake.summary_reply = "They talked about a line.";
    OK(chat_resolve(chat, OVERFLOW_SUMMARISE, &e));
    assert_true(chat_busy(chat));
    fetch(is_idle);
    assert_int_equal(seen.n[EV_FAILED], 0);
    assert_int_equal(chat_messages(chat)->n, n + 2);
    const struct message *s = at(n), *reply = at(n + 1);
    assert_int_equal(at(n - 1)->id, question);
    assert_int_equal(s->role, ROLE_SYSTEM);
    assert_string_equal(s->text, "They talked about a line.");
    assert_string_equal(s->finish, "summary");
    assert_string_equal(reply->text, "one two three");
    assert_string_equal(fake_prompt(),
                        "system: SYS\n\nSummary of the conversation so far:\n\nThey talked about a "
                        "line.\nuser: " LINE "\nassistant: ");
    assert_int_equal(chat_dropped(chat), n - 1);
    turn("and on"); /* later turns see the summary and what came after it */
    assert_non_null(strstr(fake_prompt(), "They talked about a line.\nuser: " LINE
                                          "\nassistant: one two three\nuser: and on\n"));
    int64_t id = chat_id(chat);
    OK(chat_open(chat, 0, &e));
    OK(chat_open(chat, id, &e));
    assert_int_equal(chat_dropped(chat), n - 1);
    OK(chat_regenerate(chat, at(n + 1)->id, &e));
    fetch(is_idle);
    assert_int_equal(at(n)->role, ROLE_SYSTEM); /* the new reply is below the same summary */
}

static void summary_reads_more_than_fits_in_rounds(void **state) {
    (void)state;
    fake.ctx_tok = 4000;
    load("big");
    for (int i = 0; i < 24; i++)
        turn(LINE LINE);
    fake.ctx_tok = 1200;
    load("small");
    assert_int_equal(chat_send(chat, "more", &e), ST_CONTEXT_FULL);
    int before = fake_requests();
    OK(chat_resolve(chat, OVERFLOW_SUMMARISE, &e));
    fetch(is_idle);
    assert_int_equal(seen.n[EV_FAILED], 0);
    assert_true(fake_requests() - before > 3);
    assert_string_equal(last()->text, "one two three");
    assert_int_equal(fake_sessions(), 1); /* those of the rounds are gone */
}

static void stopped_or_empty_summary_changes_nothing(void **state) {
    (void)state;
    fill(LINE);
    size_t n = chat_messages(chat)->n;
    fake.summary_reply = "  ";
    OK(chat_resolve(chat, OVERFLOW_SUMMARISE, &e));
    fetch(is_idle);
    assert_int_equal(seen.n[EV_FAILED], 1);
    assert_int_equal(chat_messages(chat)->n, n);
    fake.summary_reply = "never comes to its end";
    fake.token_us = 20000;
    fake.endless = true;
    assert_int_equal(chat_regenerate(chat, last()->id, &e), ST_CONTEXT_FULL);
    OK(chat_resolve(chat, OVERFLOW_SUMMARISE, &e));
    chat_stop(chat);
    fetch(is_idle);
    assert_int_equal(seen.err.code, ST_CANCELLED);
    assert_int_equal(chat_messages(chat)->n, n);
}

static void too_long_message_is_refused_with_numbers(void **state) {
    (void)state;
    char text[2001];
    memset(text, 'x', 2000);
    text[2000] = '\0';
    assert_int_equal(chat_send(chat, text, &e), ST_LIMIT);
    assert_non_null(strstr(e.msg, "2018 tokens"));
    assert_non_null(strstr(e.msg, "holds 1200"));
    assert_int_equal(chat_id(chat), 0); /* the text stays where it was typed */
}

static void context_that_fills_while_streaming_is_told(void **state) {
    (void)state;
    fake.endless = true;
    turn("tell me everything");
    assert_int_equal(seen.n[EV_DONE], 1);
    assert_int_equal(seen.n[EV_CONTEXT_FULL], 1);
    assert_string_equal(last()->finish, "length");
    assert_int_equal(last()->state, MSG_COMPLETE);
    clear_seen();
    OK(chat_open(chat, 0, &e));
    OK(chat_set(chat, "max_tokens", "5", &e));
    turn("tell me little");
    assert_string_equal(last()->finish, "length");
    assert_int_equal(last()->completion_tok, 5);
    assert_int_equal(seen.n[EV_CONTEXT_FULL], 0); /* that was the person's own limit */
}

static void template_without_system_role_gets_it_in_the_question(void **state) {
    (void)state;
    fake.no_system = true;
    OK(chat_set_system(chat, "SYS", &e));
    turn("hi");
    assert_string_equal(fake_prompt(), "user: SYS\n\nhi\nassistant: ");
}

static void defaults_of_the_configuration_hold_for_new_ones(void **state) {
    (void)state;
    config.system = xstrdup("From the file.");
    setting_set(&config.settings, setting_find("top_k"), "3", &e);
    OK(chat_open(chat, 0, &e));
    assert_string_equal(chat_system(chat), "From the file.");
    assert_int_equal(chat_settings(chat)->sampling.top_k, 3);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define BARE(f) cmocka_unit_test_setup_teardown(f, setup_without_model, teardown)
#define SMALL(f) cmocka_unit_test_setup_teardown(f, setup_small, teardown)

/* -- the draft -- */

static bool poll_is_empty(void) {
    struct chat_event ev;
    bool got = false;
    while (chat_poll(chat, &ev)) {
        got = true;
        chat_event_release(&ev);
    }
    return !got;
}

/* What follows the draft in the prompt is not part of what stays. */
static void draft_is_computed_up_to_its_last_letter(void **state) {
    (void)state;
    OK(chat_set_system(chat, "Be kind.", &e));
    chat_prefill_draft(chat, "Tell me about ti \n");
    assert_int_equal(fake_guesses(), 1);
    assert_string_equal(fake_guess(), "system: Be kind.\nuser: Tell me about ti");
    chat_prefill_draft(chat, "Tell me about tides");
    assert_string_equal(fake_guess(), "system: Be kind.\nuser: Tell me about tides");
    assert_true(poll_is_empty());
    assert_false(chat_busy(chat));
    turn("Tell me about tides, please");
    assert_int_equal(seen.result.cached_tok,
                     strlen("system: Be kind.\nuser: Tell me about tides"));
    assert_int_equal(fake_sessions(), 1); /* the draft's session became the conversation's */
    chat_prefill_draft(chat, "and"); /* behind a history every word counts */
    assert_string_equal(fake_guess(), "system: Be kind.\nuser: Tell me about tides, please\n"
                                      "assistant: one two three\nuser: and");
    turn("and the Moon?");
    assert_int_equal(seen.result.cached_tok, strlen(fake_guess()));
}

/* The session that was the draft's is saved for the conversation that it became, and for nobody
 * before. */
static void draft_is_saved_for_nobody(void **state) {
    (void)state;
    chat_prefill_draft(chat, "Tell me about tides");
    load("smol"); /* lets go of all sessions */
    assert_int_equal(fake.n_kept, 0);
    chat_prefill_draft(chat, "Tell me about tides");
    turn("Tell me about tides, please");
    load("smol");
    assert_int_equal(fake.n_kept, 1);
    assert_int_equal(fake.kept, chat_id(chat));
}

static void draft_of_another_conversation_is_given_up(void **state) {
    (void)state;
    turn("first");
    chat_prefill_draft(chat, "a question on it");
    assert_int_equal(fake_guesses_ended(), 0);
    OK(chat_open(chat, 0, &e));
    assert_int_equal(fake_guesses_ended(), 1);
    chat_prefill_draft(chat, "something quite new");
    assert_string_equal(fake_guess(), "user: something quite new");
    OK(chat_set_draft(chat, "something quite new", &e)); /* it gets a row */
    chat_prefill_draft(chat, "something quite new, and");
    assert_int_equal(fake_guesses(), 3);
    chat_prefill_draft(chat, " ");
    assert_int_equal(fake_guesses_ended(), 3);
    assert_int_equal(fake_guesses(), 3);
}

static void no_draft_is_computed_when_it_is_of_no_use(void **state) {
    (void)state;
    chat_prefill_draft(chat, "hi");
    chat_prefill_draft(chat, "");
    config.prefill_draft = false;
    chat_prefill_draft(chat, "a longer question than that");
    config.prefill_draft = true;
    fake.endless = true;
    OK(chat_send(chat, "go on for ever", &e));
    chat_prefill_draft(chat, "the next question already");
    chat_stop(chat);
    fetch(is_idle);
    assert_int_equal(fake_guesses(), 0);
    char *much = xcalloc(5000, 1);
    memset(much, 'x', 4999);
    chat_prefill_draft(chat, much); /* more than the context holds */
    assert_int_equal(fake_guesses(), 0);
    free(much);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T(states_are_saved_of_stored_conversations_only),
        T(forgotten_conversation_is_not_saved),
        T(deleted_conversation_is_not_saved),
        BARE(states_are_forgotten_without_a_model),
        T(turn_is_stored_with_all_its_figures),
        T(new_conversation_has_no_row_before_its_first_message),
        T(tokens_are_told_when_wanted),
        BARE(message_is_kept_without_a_model),
        T(empty_message_and_second_turn_are_refused),
        T(stopped_reply_is_kept_and_marked),
        T(failed_reply_is_kept_and_told),
        T(streaming_reply_is_saved_within_250_ms),
        T(failing_save_is_told_and_made_good),
        T(second_turn_computes_only_what_is_new),
        T(sessions_are_bounded),
        T(opening_another_conversation_keeps_what_came),
        T(closing_while_it_streams_keeps_what_came),
        T(regenerate_and_edit_make_branches),
        T(draft_is_kept_and_taken_back),
        T(title_is_cut_between_words),
        T(settings_belong_to_their_conversation),
        T(other_process_is_seen_after_reload),
        T(failed_load_leaves_the_old_model),
        T(rates_are_those_of_the_reply_and_its_model),
        T(model_is_switched_between_turns),
        T(a_model_that_has_the_room_on_a_gpu_makes_way),
        T(gpus_are_not_asked_for_once_the_cpu_goes_on),
        T(a_model_that_changed_on_disk_is_told_from_the_loaded_one),
        T(newest_load_counts),
        BARE(model_is_chosen_in_order),
        SMALL(full_context_asks_and_drops),
        SMALL(full_context_can_be_left_as_it_is),
        SMALL(configured_stream_sends_everything),
        SMALL(stream_is_chosen_until_another_conversation),
        SMALL(answer_that_streams_ends_by_its_own_limit_alone),
        SMALL(model_that_cannot_stream_asks_for_the_other_ways),
        SMALL(configured_drop_never_asks),
        SMALL(configured_stop_stores_nothing),
        SMALL(summary_replaces_older_turns),
        SMALL(summary_reads_more_than_fits_in_rounds),
        SMALL(stopped_or_empty_summary_changes_nothing),
        SMALL(too_long_message_is_refused_with_numbers),
        SMALL(context_that_fills_while_streaming_is_told),
        T(template_without_system_role_gets_it_in_the_question),
        T(defaults_of_the_configuration_hold_for_new_ones),
        T(draft_is_computed_up_to_its_last_letter),
        T(draft_is_saved_for_nobody),
        T(draft_of_another_conversation_is_given_up),
        T(no_draft_is_computed_when_it_is_of_no_use),
    };
    if (getenv("FILTER"))
        cmocka_set_test_filter(getenv("FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
