/*
 * An emulated AVR board whose UARTs are ptys, in real time.
 *
 *     board FIRMWARE.elf MCU UART=PATH [UART=PATH]
 *
 * PATH becomes a symlink to the pty of the UART with this number. Each line on the standard input is a command, and
 * gets one line on the standard output when it has been carried out. The board ends at the end of the input, and so with the
 * process that started it.
 *
 *     reset          press the reset button
 *     cut N          reset when the first UART has sent N more bytes
 *     unplug, plug   pull the USB cable of the first UART, which cuts the power as well; put it in again
 *     adc N MV       set the voltage of an analog pin, in mV
 *     in PORT N V    set an input pin from outside, such as `in D 2 0`
 *     out PORT       show the outputs of a port that are high, as a number
 *     seen PORT      show those that have been high since this was last asked
 *     lost           show how many bytes the UARTs have lost by overrun
 *
 * simavr's main loop runs at full speed and sleeps only where the firmware does, which an Arduino's never does. So this
 * one sleeps until an absolute time after each slice. simavr's own timers would not do for this, since a reset drops
 * all of them. A machine that is too slow makes the board's time pass more slowly; nothing else changes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_adc.h>
#include <simavr/avr_ioport.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

#define HZ 16000000
#define SLICE (HZ / 500)       /* cycles between two looks at the clock and at the ptys */
#define LAG (200 * 1000000LL)  /* ns: of what is behind the clock by more, the rest is not made up for */

DEFINE_FIFO(uint16_t, uart_fifo);

struct uart {
	avr_uart_t *chip;
	avr_irq_t *input;
	const char *path;
	int master; /* -1: unplugged */
	char in[512], out[512];
	int in_first, in_count, out_count;
	avr_cycle_count_t next; /* when the next byte from the computer may start */
};

static avr_t *avr;
static struct uart uarts[2];
static int uarts_count;
static long lost;
static int seen['L' - 'A' + 1]; /* by port */
static int cut_after; /* bytes; 0: not at all */
static int cut;

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void plug(struct uart *u) {
	struct termios raw;
	int slave;
	u->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (u->master < 0 || grantpt(u->master) || unlockpt(u->master)) die("pty");
	/* Opened once, so that the end of the last user shows, and so does that there was none yet. */
	slave = open(ptsname(u->master), O_RDWR | O_NOCTTY);
	if (slave < 0 || tcgetattr(slave, &raw)) die("pty");
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	close(slave);
	unlink(u->path);
	if (symlink(ptsname(u->master), u->path)) die(u->path);
	u->in_count = u->out_count = 0;
}

static void unplug(struct uart *u) {
	unlink(u->path);
	close(u->master);
	u->master = -1;
}

/* Exchange bytes with the pty. What the board sends while nobody has it open is lost, as with a USB chip. */
static void exchange(struct uart *u) {
	struct pollfd p = {u->master, POLLIN | POLLOUT, 0};
	ssize_t n;
	if (u->master < 0) return;
	poll(&p, 1, 0);
	if (p.revents & POLLHUP) {
		u->out_count = 0;
	} else if (u->out_count && (n = write(u->master, u->out, u->out_count)) > 0) {
		memmove(u->out, u->out + n, u->out_count - n);
		u->out_count -= n;
	}
	if ((p.revents & POLLIN) && !u->in_count) {
		n = read(u->master, u->in, sizeof u->in);
		u->in_first = 0;
		u->in_count = n > 0 ? n : 0;
	}
}

static void sent(struct avr_irq_t *irq, uint32_t value, void *param) {
	struct uart *u = param;
	(void)irq;
	if (u->out_count < (int)sizeof u->out) u->out[u->out_count++] = value;
	cut |= u == uarts && cut_after && !--cut_after;
}

/*
 * Let the next byte from the computer start. simavr raises the interrupt one byte's time later, at its end. A chip holds
 * two bytes that were not read and a third in its shift register; simavr would hold 64.
 */
static void receive(struct uart *u, avr_cycle_count_t byte) {
	if (uart_fifo_get_read_size(&u->chip->input) >= 3)
		lost++;
	else
		avr_raise_irq(u->input, (uint8_t)u->in[u->in_first]);
	u->in_first++;
	u->in_count--;
	u->next = (u->next + byte > avr->cycle ? u->next : avr->cycle) + byte;
}

static void step_uart(struct uart *u) {
	/* No limit to how fast the firmware reads bytes that are there: simavr's is too strict. */
	u->chip->rx_cnt = 0;
	if (!u->in_count || avr->cycle < u->next) return;
	receive(u, u->chip->cycles_per_byte);
}

/* simavr counts a parity bit in any case, which makes 11 bits of a byte's 10. */
static void set_speed(struct uart *u) {
	avr_uart_t *c = u->chip;
	avr_cycle_count_t bit = avr_regbit_get(avr, c->ubrrl) | avr_regbit_get(avr, c->ubrrh) << 8;
	bit = (bit + 1) * (avr_regbit_get(avr, c->u2x) ? 8 : 16);
	c->cycles_per_byte = bit * 10;
}

/* The outputs of a port that are high; 0 if the chip has none. */
static int outputs(char port) {
	avr_ioport_state_t state = {0};
	avr_ioctl(avr, AVR_IOCTL_IOPORT_GETSTATE(port), &state);
	return state.port & state.ddr;
}

static void answer(char *command) {
	char name[16] = "", port = 0;
	int a = 0, b = 0;
	sscanf(command, "%15s", name);
	if (!strcmp(name, "reset")) {
		avr_reset(avr);
	} else if (sscanf(command, "cut %d", &a) == 1) {
		cut_after = a;
	} else if (!strcmp(name, "unplug")) {
		unplug(&uarts[0]);
	} else if (!strcmp(name, "plug")) {
		plug(&uarts[0]);
		avr_reset(avr);
	} else if (sscanf(command, "adc %d %d", &a, &b) == 2) {
		avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + a), b);
	} else if (sscanf(command, "in %c %d %d", &port, &a, &b) == 3) {
		avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(port), a), b);
	} else if (sscanf(command, "out %c", &port) == 1) {
		printf("%d\n", outputs(port));
		return;
	} else if (sscanf(command, "seen %c", &port) == 1 && port >= 'A' && port <= 'L') {
		printf("%d\n", seen[port - 'A']);
		seen[port - 'A'] = 0;
		return;
	} else if (!strcmp(name, "lost")) {
		printf("%ld\n", lost);
		return;
	} else {
		printf("unknown\n");
		return;
	}
	printf("ok\n");
}

static void commands(void) {
	static char line[128];
	static size_t length;
	char c;
	ssize_t n;
	while ((n = read(0, &c, 1)) == 1) {
		if (c != '\n') {
			if (length < sizeof line - 1) line[length++] = c;
			continue;
		}
		line[length] = 0;
		length = 0;
		answer(line);
		fflush(stdout);
	}
	if (n) return;
	/* The next pty of somebody else may have the same number: the daemon must not find it behind our symlinks. */
	for (int i = 0; i < uarts_count; i++)
		if (uarts[i].master >= 0) unplug(&uarts[i]);
	exit(0);
}

static long long clock_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pace(avr_cycle_count_t cycles) {
	static long long due;
	long long now = clock_ns();
	if (!due) due = now;
	due += (long long)cycles * 1000 / (HZ / 1000000);
	if (now - due > LAG) due = now - LAG;
	if (due > now) {
		struct timespec t = {due / 1000000000, due % 1000000000};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
}

static avr_uart_t *find_uart(char name) {
	for (avr_io_t *io = avr->io_port; io; io = io->next)
		if (!strcmp(io->kind, "uart") && ((avr_uart_t *)io)->name == name) return (avr_uart_t *)io;
	fprintf(stderr, "there is no UART %c\n", name);
	exit(1);
}

static void quiet(avr_t *a, const int level, const char *format, va_list arguments) {
	(void)a;
	if (level <= LOG_ERROR) vfprintf(stderr, format, arguments);
}

int main(int argc, char **argv) {
	elf_firmware_t firmware = {0};
	avr_cycle_count_t start;
	int state;
	if (argc < 4 || argc > 5) return 2;
	avr_global_logger_set(quiet);
	if (elf_read_firmware(argv[1], &firmware)) die(argv[1]);
	avr = avr_make_mcu_by_name(argv[2]);
	if (!avr) return 2;
	avr_init(avr);
	avr->frequency = firmware.frequency = HZ;
	avr_load_firmware(avr, &firmware);
	avr->vcc = avr->avcc = avr->aref = 5000;
	for (char **argument = argv + 3; *argument; argument++) {
		struct uart *u = &uarts[uarts_count++];
		char name = **argument;
		u->chip = find_uart(name);
		u->path = *argument + 2;
		u->input = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_INPUT);
		avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ(name), UART_IRQ_OUTPUT), sent, u);
		avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS(name), &(uint32_t){0}); /* do not print what it sends */
		plug(u);
	}
	fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
	printf("ok\n");
	fflush(stdout);
	for (;;) {
		start = avr->cycle;
		for (int i = 0; i < uarts_count; i++) {
			exchange(&uarts[i]);
			set_speed(&uarts[i]);
		}
		commands();
		if (uarts[0].master < 0) { /* without power */
			pace(SLICE);
			continue;
		}
		while (avr->cycle - start < SLICE) {
			state = avr_run(avr);
			if (state == cpu_Crashed || state == cpu_Done) {
				fprintf(stderr, "the firmware has crashed\n");
				return 1;
			}
			for (int i = 0; i < uarts_count; i++) step_uart(&uarts[i]);
			if (cut) avr_reset(avr);
			cut = 0;
		}
		for (char port = 'A'; port <= 'L'; port++) seen[port - 'A'] |= outputs(port);
		pace(avr->cycle - start);
	}
}
