/* What every test kernel shares: a serial console, an exact report, and misbehaviour on request. */
#ifndef REPORT_H
#define REPORT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* report_begin(name) ... report_bytes / report_number / report_module ... report_end(cmdline, length). */
void report_begin(const char *protocol);
/* One line: name "bytes", everything but plain ASCII, quote and backslash as \xNN. */
void report_bytes(const char *name, const void *bytes, u32 length);
void report_number(const char *name, u32 hex);
/* text is what came with the module: its string, under Linux nothing. */
void report_module(const void *text, u32 text_length, const void *content, u32 size);
/* Ends the report and does what the words of the command line ask for; never returns. */
void report_end(const char *cmdline, u32 length) __attribute__((noreturn));

u32 length_of(const char *text);

#endif
