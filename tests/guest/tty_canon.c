/* The line discipline, canonical mode: editing, ends of lines, echo in all its forms. */
#include "tty.h"

static void begin(const char *what)
{
    CASE(what);
    sane();
}

static void editing(void)
{
    begin("erase");
    TYPE("abX\x7f"
         "c\n");
    line("line");
    screen("echo");
    begin("erase at the start, and over the end of the last line");
    TYPE("one\n\x7f\x7ftwo\n");
    line("line");
    line("line");
    screen("echo");
    begin("word erase: letters, other characters, blanks");
    TYPE("a b_9 +-* \x17x\n");
    line("line");
    TYPE("path/to/file\x17\x17y\n");
    line("line");
    TYPE("\xe9t\xe9 \xd7\x17z\n");
    line("latin");
    screen("echo");
    begin("kill");
    TYPE("all gone\x15new\n");
    line("line");
    screen("echo");
    begin("kill without ECHOKE");
    MODE(c_lflag, 0, ECHOKE);
    TYPE("all gone\x15new\n");
    line("line");
    screen("echo");
    begin("kill without ECHOK");
    MODE(c_lflag, 0, ECHOK | ECHOKE);
    TYPE("all gone\x15new\n");
    screen("echo");
    begin("erase without ECHOE");
    MODE(c_lflag, 0, ECHOE);
    TYPE("abc\x7f\x7f"
         "d\x17"
         "e\x15"
         "f\n");
    line("line");
    screen("echo");
    begin("ECHOPRT");
    MODE(c_lflag, ECHOPRT, 0);
    TYPE("abc\x7f\x7f"
         "d ef\x17"
         "g\x15h\n");
    line("line");
    screen("echo");
    begin("erasing control characters and tabs");
    TYPE("a\x01\x7f"
         "b\tcd\t\x7f\x7f\x7f"
         "e\n");
    line("line");
    screen("echo");
    begin("the same without ECHOCTL");
    MODE(c_lflag, 0, ECHOCTL);
    TYPE("a\x01\x7f"
         "b\t\x02"
         "cd\t\x7f\x7f\x7f"
         "e\n");
    line("line");
    screen("echo");
    begin("a tab after a prompt");
    MUST(write(slave, "prompt> ", 8));
    TYPE("x\ty\x7f\x7f\x7fz\n");
    line("line");
    screen("echo");
    begin("IUTF8");
    MODE(c_iflag, IUTF8, 0);
    TYPE("\xc3\xa9\xe2\x82\xac\x7f"
         "x\t\x7f\x7f\x7f\x7f"
         "e\xcc\x81\x7f\n");
    line("line");
    screen("echo");
}

static void literally(void)
{
    begin("lnext");
    TYPE("\x16\x03\x16\x04\x16\n\x16\x7f\x16\x16\n");
    line("line");
    screen("echo");
    begin("lnext at the end of a piece");
    TYPE("a\x16");
    TYPE("\x15"
         "b\n");
    line("line");
    begin("lnext without IEXTEN is data, and so are the others");
    MODE(c_lflag, 0, IEXTEN);
    TYPE("a\x16"
         "b\x17"
         "c\x12"
         "d\n");
    line("line");
    screen("echo");
    begin("lnext without ECHOCTL");
    MODE(c_lflag, 0, ECHOCTL);
    TYPE("\x16\x03\n");
    screen("echo");
    begin("reprint");
    TYPE("ab\x01\x12"
         "c\n");
    line("line");
    screen("echo");
    begin("reprint without ECHO is data");
    MODE(c_lflag, 0, ECHO);
    TYPE("ab\x12"
         "c\n");
    line("line");
    begin("disabled characters");
    set_char(VERASE, 0);
    set_char(VINTR, 0);
    set_char(VEOF, 0);
    TYPE("a\x7f"
         "b\x03"
         "c\x04"
         "d\0e\n");
    line("line");
    screen("echo");
}

static void ends(void)
{
    begin("several lines, read one by one");
    TYPE("one\ntwo\n\nthree\n");
    say("readable %d", pending(slave));
    for (int i = 0; i < 5; i++)
        line("line");
    begin("in pieces");
    TYPE("abcdefgh\n");
    take_some("3", slave, 3);
    take_some("5", slave, 5);
    take_some("1", slave, 1);
    line("more");
    TYPE("abc\ndef\n");
    take_some("exactly", slave, 4);
    take_some("0", slave, 0);
    line("next");
    begin("end of file");
    TYPE("\x04");
    line("EOF");
    line("more");
    TYPE("part\x04");
    say("readable %d", pending(slave));
    take_some("exactly 4", slave, 4);
    line("more");
    TYPE("part\x04");
    take_some("2", slave, 2);
    take_some("2", slave, 2);
    line("more");
    TYPE("a\x04\x04"
         "b\n\x04");
    for (int i = 0; i < 5; i++)
        line("line");
    screen("echo");
    begin("VEOL and VEOL2");
    set_char(VEOL, ';');
    set_char(VEOL2, '!');
    TYPE("one;two!three\n");
    for (int i = 0; i < 4; i++)
        line("line");
    screen("echo");
    MODE(c_lflag, 0, IEXTEN);
    TYPE("one;two!three\n");
    for (int i = 0; i < 3; i++)
        line("line");
    begin("nothing of an unfinished line");
    TYPE("unfinished");
    say("readable %d", pending(slave));
    line("line");
    TYPE("\n");
    line("line");
}

static void mapping(void)
{
    begin("CR");
    TYPE("cr\rnl\n");
    line("ICRNL");
    line("ICRNL");
    screen("echo");
    MODE(c_iflag, 0, ICRNL);
    TYPE("cr\rnl\n");
    line("plain");
    screen("echo");
    MODE(c_iflag, IGNCR, 0);
    TYPE("cr\rnl\n");
    line("IGNCR");
    MODE(c_iflag, INLCR, IGNCR | ICRNL);
    TYPE("nl\nx\x04");
    line("INLCR");
    screen("echo");
    MODE(c_iflag, INLCR | ICRNL | IGNCR, 0);
    TYPE("both\r\n\x04");
    line("INLCR and IGNCR");
    begin("ISTRIP");
    MODE(c_iflag, ISTRIP, 0);
    TYPE("\xe1\xe2\xff\x84");
    line("line");
    screen("echo");
    begin("IUCLC");
    MODE(c_iflag, IUCLC, 0);
    TYPE("ABC\xc0\xd7xyz\n");
    line("line");
    screen("echo");
    begin("PARMRK doubles 0xff");
    MODE(c_iflag, PARMRK, 0);
    TYPE("a\xff"
         "b\n");
    line("line");
    screen("echo");
    begin("0xff without it");
    TYPE("a\xff"
         "b\n");
    line("line");
    screen("echo");
}

static void echoes(void)
{
    begin("ECHONL");
    MODE(c_lflag, ECHONL, ECHO);
    TYPE("secret\n");
    line("line");
    screen("echo");
    begin("control characters");
    TYPE("\x01\x1f\x1b\t\x07\x80\xff\n");
    line("line");
    screen("echo");
    begin("without ECHOCTL");
    MODE(c_lflag, 0, ECHOCTL);
    TYPE("\x01\x1f\x1b\x07\n");
    screen("echo");
    begin("without OPOST");
    MODE(c_oflag, 0, OPOST);
    TYPE("ab\x7f\x01\r\n");
    screen("echo");
    begin("echo and output mixed");
    TYPE("ab");
    MUST(write(slave, "out", 3));
    TYPE("c\x15");
    MUST(write(slave, "\n", 1));
    screen("echo");
}

static void switching(void)
{
    begin("from canonical to raw with a line and a half");
    TYPE("line\nhal");
    MODE(c_lflag, 0, ICANON);
    say("readable %d", pending(slave));
    line("raw");
    begin("from raw to canonical with text");
    MODE(c_lflag, 0, ICANON);
    TYPE("text");
    MODE(c_lflag, ICANON, 0);
    say("readable %d", pending(slave));
    line("line");
    TYPE("more\n");
    line("line");
    begin("from raw to canonical with nothing");
    MODE(c_lflag, 0, ICANON);
    MODE(c_lflag, ICANON, 0);
    line("line");
    begin("to and fro with lines");
    TYPE("one\ntwo\n");
    MODE(c_lflag, 0, ICANON);
    MODE(c_lflag, ICANON, 0);
    line("line");
    line("line");
    begin("TCSAFLUSH");
    TYPE("one\ntwo\nthr");
    struct termios t = modes_now();
    MUST(tcsetattr(slave, TCSAFLUSH, &t));
    say("readable %d", pending(slave));
    TYPE("ee\n");
    line("line");
}

static void full(void)
{
    char text[5000];
    memset(text, 'x', sizeof text);
    begin("several lines that are too long, all before the first is read");
    MODE(c_lflag, 0, ECHO);
    for (int i = 0; i < 3; i++) {
        static char longer[4101];
        memset(longer, 'M', 4100);
        longer[4100] = '\n';
        for (int at = 0; at < 4101; at += 100)
            MUST(write(master, longer + at, at + 100 < 4101 ? 100 : 4101 - at));
    }
    for (int i = 0; i < 3; i++) {
        static char line_[8192];
        settle();
        SHOW(read(slave, line_, sizeof line_));
        say("ends with %02x %02x", line_[4094], line_[4095]);
    }
    begin("a line that is too long");
    MODE(c_lflag, 0, ECHO);
    type_bytes(text, sizeof text);
    say("readable %d", pending(slave));
    struct pollfd request = {.fd = master, .events = POLLOUT};
    SHOW(poll(&request, 1, 0));
    TYPE("yz\n");
    say("readable %d", pending(slave));
    char *got = calloc(1, 8192);
    SHOW(read(slave, got, 8192));
    say("ends with %02x %02x", got[4094], got[4095]);
    TYPE("next\n");
    line("next");
}

int main(void)
{
    open_pair();
    editing();
    literally();
    ends();
    mapping();
    echoes();
    switching();
    full();
    return 0;
}
