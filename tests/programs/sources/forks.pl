# Forks, pipes, signals and reaping in perl.
use strict;
use warnings;
use POSIX qw(:sys_wait_h);
$| = 1;

for my $code (0 .. 3) {
    my $pid = fork // die;
    exit $code unless $pid;
    waitpid $pid, 0;
    print "exited ", $? >> 8, "\n";
}
open my $out, '-|', 'echo', 'from a pipe' or die;
print <$out>;
close $out;
open my $in, '|-', 'sort -r' or die;
print $in "$_\n" for 1 .. 3;
close $in;

my $pid = open my $kid, '-|' // die;
unless ($pid) { print "child speaking\n"; exit 5 }
print <$kid>;
close $kid;
print "status ", $? >> 8, "\n";

$SIG{ALRM} = sub { die "alarm\n" };
alarm 1;
eval { sleep 60 };
print $@;

my $reaped = 0;
$SIG{CHLD} = sub { $reaped++ while waitpid(-1, WNOHANG) > 0 };
for (1 .. 10) { my $pid = fork // die; exit 0 unless $pid }
select undef, undef, undef, 0.05 while $reaped < 10;
print "reaped $reaped\n";
$SIG{CHLD} = 'DEFAULT';

$pid = fork // die;
unless ($pid) { $SIG{TERM} = 'DEFAULT'; sleep 60; exit }
kill TERM => $pid;
waitpid $pid, 0;
print "killed by ", $? & 127, "\n";
print `echo backticks`, system('exit 2') >> 8, "\n";
exec 'echo', 'the end';
